"""Many LoRA adapters over one frozen base: their weights, their training, their folders."""
