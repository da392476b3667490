"""Roots to search in: experiments with configs, facts, metrics and notes, written without torch."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from support.repo import plain_image
from weightslab.engine.identity.config import describe_config
from weightslab.engine.jsonform import encode
from weightslab.engine.repository.commit import Draft
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.values import ParentLink

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Hours:
    """A clock that goes on by an hour at each look."""

    def __init__(self):
        self.hours = 0

    def __call__(self):
        self.hours += 1
        return START + timedelta(hours=self.hours)


def open_root(path, **more):
    """Open a root whose first experiment begins one hour into 2026."""
    return CheckpointRoot(path, clock=Hours(), **more)


def begin(root, config, **facts):
    """Begin an experiment; its facts are `model_class`, `num_parameters`, `num_samples`."""
    described = describe_config(config)
    model = "sha256:" + f"{len(facts)}a" * 32 if facts else None
    record = ExperimentRecord(
        components=Components(config=described.digest, model=model),
        created_at=root.clock(),
        facts=facts,
    )
    open_experiment(root.store, record, ExperimentContent(config=described.plain))
    return record.exp_hash


def save(root, exp_hash, step, size_bytes=48, **metrics):
    """Commit a checkpoint; returns its manifest."""
    data = f"{exp_hash}/{step}/{metrics}".encode().ljust(size_bytes, b".")[:size_bytes]
    return write_checkpoint(
        root,
        Draft(
            exp_hash=exp_hash,
            experiment_digest="wl1:sha256:" + exp_hash * 4,
            step=step,
            images={"model": plain_image(data)},
            aliases={},
            state={"model": {}},
            metadata=None,
            metrics=encode(metrics, path="metrics"),
            parent=ParentLink(kind="fresh", exact=True),
            config_file=None,
            versions={"python": "3"},
        ),
    )


def age(root):
    """Let every file and folder be as old as if nothing had been written for an hour."""
    for folder, _, files in os.walk(root.path):
        for name in [".", *files]:
            os.utime(Path(folder, name), (1_700_000_000, 1_700_000_000))
