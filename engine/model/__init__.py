"""Base models: which are known, where their weights come from, and how they are loaded."""
