"""From captured state to a committed checkpoint."""
