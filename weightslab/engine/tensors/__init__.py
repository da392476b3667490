"""Tensors as bytes: state trees, the safetensors file image and its check.

`header` and `check` are free of torch, so that a root can be verified without it.
"""
