"""Roots on disk for collections: lines of checkpoints with parents, metrics and training state."""

from __future__ import annotations

from dataclasses import replace

from support.roots import begin, content_of, draft_of, small_root, ticking_clock
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.values import ParentLink


def root_at(path, number=0, **more):
    """Open a root with a clock that ticks; returns it and the hash of experiment `number`."""
    root = small_root(path, **{"clock": ticking_clock(), **more})
    return root, begin(root, number)[0]


def parent_of(manifest, via=()):
    """Return the link with which a child names a checkpoint."""
    if manifest is None:
        return ParentLink(kind="fresh", via=tuple(via), exact=not via)
    name = manifest.name
    return ParentLink(
        kind="checkpoint",
        exp_hash=name.exp_hash,
        step=name.step,
        revision=name.revision,
        manifest_digest=manifest.digest,
        via=tuple(via),
        exact=not via,
    )


def save(root, exp_hash, step, *, parent=None, via=(), metrics=None, text=None, size_bytes=48):
    """Commit a checkpoint with training state; returns its manifest."""
    parts = content_of(text or f"{exp_hash}{step}", size_bytes)
    draft = draft_of(exp_hash, step, parts)
    return write_checkpoint(
        root, replace(draft, parent=parent_of(parent, via), metrics=metrics or {})
    )


def line(root, exp_hash, steps, *, parent=None, **more):
    """Commit one run, each checkpoint the parent of the next; returns the manifests."""
    made = []
    for step in steps:
        parent = save(root, exp_hash, step, parent=parent, **more)
        made.append(parent)
    return made


def steps_of(root, exp_hash):
    """Return (step, revision, whether it has training state) of what is there, in order of commit."""
    return [
        (e.name.step, e.name.revision, "training" in e.parts) for e in root.checkpoints(exp_hash)
    ]
