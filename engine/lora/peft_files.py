"""The names of PEFT's two files. Imports nothing: `stack` runs where there is no pandas, `adapters` where no torch."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
