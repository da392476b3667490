"""Moving weights between architectures: what fits is copied, the rest is told."""
