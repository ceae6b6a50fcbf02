"""What answers a live prompt: a local model, or a server of models."""
