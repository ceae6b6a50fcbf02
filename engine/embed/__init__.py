"""Sentence embeddings of a variant, and their geometry."""
