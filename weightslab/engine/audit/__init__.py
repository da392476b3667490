"""Audit: which checkpoints were trained with which samples, and what proves it."""
