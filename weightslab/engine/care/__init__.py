"""Care: what people do to a root beside training: look, verify, pin, delete, and have back."""
