"""Adapters as folders for others, with a model card."""
