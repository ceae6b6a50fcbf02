"""The engine: trains LoRA adapters, generates, scores and stores. It never imports the app."""
