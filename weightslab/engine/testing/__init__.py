"""Test tools for authors of stores: the contract every store must pass, and faults."""
