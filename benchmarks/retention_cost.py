"""Retention: deciding about many checkpoints, and collecting them.

The plan is measured over facts in memory. The collection is real: files, folders and fsyncs on the
disk of `--dir`, each checkpoint with 12 tensors of weights and 24 of training state.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from weightslab.engine.repository.catalog import CheckpointEntry
from weightslab.engine.repository.commit import Draft
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.retention.facts import Candidate, FileFacts
from weightslab.engine.retention.planning import plan_retention
from weightslab.engine.retention.policies import (
    BestN,
    ByteBudget,
    CustomSteps,
    EveryNSeconds,
    EveryNSteps,
    LatestN,
)
from weightslab.engine.retention.rules import Retention
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.tensors.header import HeaderEntry
from weightslab.engine.tensors.packing import FileImage
from weightslab.engine.values import ParentLink

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NUM_CHECKPOINTS = 1000
EVERYTHING = Retention(
    keep=LatestN(3) | BestN("loss", 3) | EveryNSteps(1000) | EveryNSeconds(3600) | CustomSteps([7]),
    training=LatestN(2),
    budget=ByteBudget(200_000, scope="root"),
)
RULES = {
    "`LatestN(3)`": Retention.of(LatestN(3)),
    '`LatestN(3) \\| BestN("loss")`': Retention.of(LatestN(3) | BestN("loss")),
    "a byte budget": Retention.of(ByteBudget(300_000, scope="root")),
    "five policies, training state, a budget": EVERYTHING,
}


def main(folder: Path, *, rounds: int = 5) -> list[str]:
    """Measure, and return the tables."""
    head = ["| what | figure | goal |", "|---|---:|---:|"]
    tables = []
    for title, rows in (
        ("### Deciding about 10,000 checkpoints of 10 experiments", plan_rows(rounds)),
        (f"### Collecting {NUM_CHECKPOINTS:,} checkpoints", gc_rows(folder, rounds)),
    ):
        tables.append("\n".join([title, "", *head, *(f"| {a} | {b} | {c} |" for a, b, c in rows)]))
    return tables


# ---------------------------------------------------------------- deciding
def history(num_experiments: int, num_steps: int) -> list[Candidate]:
    """Return checkpoints, each the parent of the next, also from one experiment to the next."""
    made: list[Candidate] = []
    link = ParentLink(kind="fresh")
    for number in range(num_experiments):
        for step in range(num_steps):
            name = CheckpointName(exp_hash=f"{number:016x}", step=100 * step)
            entry = CheckpointEntry(
                name=name,
                sequence=step + 1,
                created_at=ORIGIN + timedelta(seconds=30 * len(made)),
                digest=f"sha256:{name.stem}",
                metrics={"loss": (len(made) * 7919 % 10_007) / 10_007},
                parent=link,
                size_bytes=300,
                parts=("model", "training"),
            )
            files = (
                FileFacts(key=f"{name.stem}.m", size_bytes=100, identity=(1, 2 * len(made))),
                FileFacts(
                    key=f"{name.stem}.t",
                    size_bytes=200,
                    identity=(1, 2 * len(made) + 1),
                    is_training=True,
                ),
            )
            made.append(Candidate(entry=entry, files=files))
            link = entry.as_parent()
    return made


def plan_rows(rounds: int) -> list[tuple[str, str, str]]:
    """Each kind of retention over the same history."""
    candidates = history(10, 1000)
    rows = []
    for name, retention in RULES.items():
        found = [
            seconds(lambda r=retention: plan_retention(candidates, r)) for _ in range(3 * rounds)
        ]
        rows.append((name, f"{statistics.median(found) * 1e3:.0f} ms", "<= 100 ms"))
    return rows


# ---------------------------------------------------------------- collecting
def gc_rows(folder: Path, rounds: int) -> list[tuple[str, str, str]]:
    """Drop most of a root, thin most of a root, look at a root in which nothing is to be done."""
    template = folder / "template"
    make_root(template)
    drop, again, thin, dry = [], [], [], []
    for number in range(min(rounds, 3)):
        path = folder / f"drop {number}"
        copy(template, path)
        root = CheckpointRoot(path)
        dry.append(seconds(lambda r=root: r.gc(LatestN(10), dry_run=True)))
        drop.append(seconds(lambda r=root: r.gc(LatestN(10))))
        again.append(seconds(lambda r=root: r.gc(LatestN(10))))
        shutil.rmtree(path)
        copy(template, path)
        wanted = Retention(keep=LatestN(200), training=LatestN(100))
        CheckpointRoot(path).gc(Retention(keep=LatestN(200)))
        thin.append(seconds(lambda p=path, w=wanted: CheckpointRoot(p).gc(w)))
        shutil.rmtree(path)
    median = statistics.median
    return [
        ("drop 990 of 1,000", f"{median(drop):.2f} s", "<= 3 s"),
        ("the same, dry run (first look at the root)", f"{median(dry):.2f} s", ""),
        ("done again: nothing to do, 10 left", f"{median(again) * 1e3:.0f} ms", ""),
        ("thin 100 of 200", f"{median(thin):.2f} s = {median(thin) * 10:.0f} ms each", ""),
    ]


def make_root(path: Path) -> None:
    """Save 1,000 checkpoints into one experiment."""
    root = CheckpointRoot(path)
    record = ExperimentRecord(
        components=Components(config="sha256:" + "1" * 64), created_at=root.clock()
    )
    content = ExperimentContent(config={"n": 0})
    open_experiment(root.store, record, content)
    link = ParentLink(kind="fresh", exact=True)
    sync, os.fsync = os.fsync, lambda _: None  # made once; nobody measures it
    try:
        for step in range(NUM_CHECKPOINTS):
            manifest = write_checkpoint(root, draft(record.exp_hash, step, link))
            link = replace(
                link,
                kind="checkpoint",
                exp_hash=record.exp_hash,
                step=step,
                revision=1,
                manifest_digest=manifest.digest,
            )
    finally:
        os.fsync = sync


def draft(exp_hash: str, step: int, parent: ParentLink) -> Draft:
    """Return a checkpoint with 12 small tensors of weights and 24 of training state."""
    return Draft(
        exp_hash=exp_hash,
        experiment_digest="wl1:sha256:" + exp_hash * 4,
        step=step,
        images={"model": image(12), "training": image(24)},
        aliases={},
        state={"model": {}, "training": {}},
        metadata=None,
        metrics={"loss": 1.0 / (step + 1)},
        parent=parent,
        config_file=None,
        versions={"python": "3"},
    )


def image(num_tensors: int) -> FileImage:
    """Return tensors of 64 random bytes."""
    entries = {
        f"layers.{n}": HeaderEntry(dtype="U8", shape=(64,), offset=4 + 64 * n, size_bytes=64)
        for n in range(num_tensors)
    }
    data = [memoryview(os.urandom(64)) for _ in range(num_tensors)]
    return FileImage(parts=[b"head", *data], entries=entries)


def copy(source: Path, target: Path) -> None:
    """Copy a root and have it on disk, so that what follows does not wait for it."""
    shutil.copytree(source, target)
    if hasattr(os, "sync"):
        os.sync()


def seconds(work) -> float:
    """Time one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
