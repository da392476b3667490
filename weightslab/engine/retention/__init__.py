"""Retention: which checkpoints stay, which go and why. Pure: no files, no clock, no torch."""
