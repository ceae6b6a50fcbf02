"""Export of adapters and merged models, with a model card."""
