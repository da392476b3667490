"""Collecting: a retention is applied to a root: look, plan, look again, carry out, tell. Free of torch."""
