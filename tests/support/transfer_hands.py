"""What worker processes do with two roots; run by the fork server."""

from __future__ import annotations

from support.hands import collect_until, save_some, save_with_branches  # noqa: F401 - called by name
from support.roots import small_root


def unbundle(ready, path, bundle):
    """Take a bundle in; returns the status of each checkpoint."""
    root = small_root(path)
    ready()
    return [checkpoint.status for checkpoint in root.unbundle(bundle).checkpoints]


def copy_until(ready, source, target, exp_hash, step):
    """Copy an experiment again and again until a step of it has come; returns all statuses seen."""
    root, other = small_root(source), small_root(target)
    ready()
    seen = set()
    while not other.catalog.exp_hashes() or not other.find_checkpoint(exp_hash, step):
        seen |= {c.status for c in root.copy_to(other, exp_hash).checkpoints}
    return sorted(seen)
