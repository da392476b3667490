"""Histories of a root for retention: checkpoints as facts, without files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from weightslab.engine.repository.catalog import CheckpointEntry
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.retention.facts import Candidate, FileFacts
from weightslab.engine.retention.planning import DROP, THIN
from weightslab.engine.values import ParentLink

ORIGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
A, B, C = "a" * 16, "b" * 16, "c" * 16


def name_of(exp_hash, step, revision=1):
    return CheckpointName(exp_hash=exp_hash, step=step, revision=revision)


def link_to(name, via=()):
    """Return what a child says of its parent; None of a fresh model."""
    if name is None:
        return ParentLink(kind="fresh", via=tuple(via), exact=not via)
    return ParentLink(
        kind="checkpoint",
        exp_hash=name.exp_hash,
        step=name.step,
        revision=name.revision,
        manifest_digest=digest_of(name),
        via=tuple(via),
    )


def digest_of(name):
    return f"sha256:{name.stem}"


def file_of(key, size_bytes=100, inode=None, *, is_training=False, num_links=1):
    return FileFacts(
        key=key,
        size_bytes=size_bytes,
        identity=(1, hash(key) if inode is None else hash(inode)),
        num_links=num_links,
        is_training=is_training,
    )


class History:
    """Checkpoints one after the other, a minute apart."""

    def __init__(self):
        self.candidates = []
        self._sequences = {}

    def save(
        self,
        exp_hash,
        step,
        *,
        revision=1,
        parent=None,
        via=(),
        metrics=None,
        weights=100,
        training=200,
        files=None,
        minutes=None,
        **facts,
    ):
        """Add a checkpoint; returns its name."""
        name = name_of(exp_hash, step, revision)
        sequence = self._sequences[exp_hash] = self._sequences.get(exp_hash, 0) + 1
        moment = len(self.candidates) if minutes is None else minutes
        if files is None:
            files = [file_of(f"{name.stem}.safetensors", weights)]
            if training:
                key = f"{name.stem}.training.safetensors"
                files.append(file_of(key, training, is_training=True))
        entry = CheckpointEntry(
            name=name,
            sequence=sequence,
            created_at=ORIGIN + timedelta(minutes=moment),
            digest=digest_of(name),
            metrics=metrics or {},
            parent=link_to(parent, via),
            size_bytes=sum(file.size_bytes for file in files),
            parts=("model", "training") if training else ("model",),
        )
        self.candidates.append(Candidate(entry=entry, files=tuple(files), **facts))
        return name

    def line(self, exp_hash, steps, *, parent=None, **facts):
        """Add checkpoints of one run, each the parent of the next; returns their names."""
        names = []
        for step in steps:
            parent = self.save(exp_hash, step, parent=parent, **facts)
            names.append(parent)
        return names


def carried_out(candidates, plan):
    """Return what is left once a plan is carried out, as the collector and thinning leave it."""
    actions = {decision.name: decision.action for decision in plan.decisions}
    left = []
    for member in candidates:
        action = actions[member.entry.name]
        if action == THIN:
            left.append(thinned(member, candidates))
        elif action != DROP:
            left.append(member)
    return left


def thinned(member, candidates):
    """Return the revision that thinning makes of a checkpoint."""
    name = member.entry.name
    highest = max(
        c.entry.name.revision
        for c in candidates
        if (c.entry.name.exp_hash, c.entry.name.step) == (name.exp_hash, name.step)
    )
    new = name_of(name.exp_hash, name.step, highest + 1)
    files = tuple(file for file in member.files if not file.is_training)
    entry = replace(
        member.entry,
        name=new,
        digest=digest_of(new),
        parts=("model",),
        size_bytes=sum(file.size_bytes for file in files),
    )
    return replace(member, entry=entry, files=files, derived_from=member.entry.digest)


def total_bytes(candidates):
    """Return the bytes of all files, shared ones once."""
    files = [file for member in candidates for file in member.files]
    return sum({file.identity: file.size_bytes for file in files}.values())
