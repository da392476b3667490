"""Capture and restore of live training objects. No I/O."""
