"""State trees as tensors plus tagged JSON, and the safetensors file image."""
