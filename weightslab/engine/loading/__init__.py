"""From a committed checkpoint back into live objects."""
