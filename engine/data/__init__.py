"""Sentence pairs, their splits, and figures that others measured."""
