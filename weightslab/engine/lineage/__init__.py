"""Lineage: which experiments and steps led to which weights; derived from the parents of checkpoints."""
