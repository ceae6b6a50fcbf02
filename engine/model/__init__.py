"""Base models: which there are, where their weights come from, and how they are held in memory."""
