"""Sentence pairs, their splits, and published figures."""
