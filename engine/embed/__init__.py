"""Sentence embeddings of a variant; what is measured of them is `engine.analysis.geometry`."""
