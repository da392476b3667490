"""Queries: a filter over 200,000 checkpoints, the first one of a process, and a listing of experiments.

The root is that of `catalog_cost`, with metrics, configs, facts, and some names and tags.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.catalog_cost import ORIGIN, fill, milliseconds, seconds, template_of
from weightslab.engine.identity.config import describe_config
from weightslab.engine.repository.config_file import config_to_bytes
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.index_file import INDEX_VARIABLE
from weightslab.engine.repository.layout import CheckpointName, config_key, experiment_key
from weightslab.engine.repository.notes import Note
from weightslab.engine.root import CheckpointRoot

if TYPE_CHECKING:
    from typing import Any

NUM_STEPS = 20
TAGGED = 100  # one experiment of so many has a name and a tag
FILTERS = (
    ("metric.loss < 0.002", "a metric"),
    ("metric.loss < 0.01 and step >= 10", "a metric and the step"),
    ("config.optimizer.lr < 0.0002 and metric.loss < 0.05", "a config value and a metric"),
    ("tag = paper and not metric.accuracy > 0.1", "a tag and `not`"),
    ("model.class = Wide and samples > 900 and metric.loss < 0.05", "facts and a metric"),
)


LISTING = """
import time, sys
start = time.perf_counter()
from weightslab.engine.root import CheckpointRoot
rows = CheckpointRoot(sys.argv[1], read_only=True).experiments(order="-created", limit=50).rows()
print(time.perf_counter() - start)
"""


def main(*, num_experiments: int = 10_000, rounds: int = 9) -> list[str]:
    """Measure, and return the table."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="weightslab-bench-", dir=in_memory) as folder:
        before = os.environ.get(INDEX_VARIABLE)
        os.environ[INDEX_VARIABLE] = f"{folder}/catalogs"
        try:
            path = Path(folder) / "root"
            make_root(path, num_experiments)
            CheckpointRoot(path).latest()
            rows = [*first_rows(path), *filter_rows(path, rounds), *listing_rows(path, rounds)]
        finally:
            os.environ.pop(INDEX_VARIABLE)
            if before is not None:
                os.environ[INDEX_VARIABLE] = before
    title = f"### Queries, {num_experiments:,} experiments x {NUM_STEPS} checkpoints"
    head = [title, "", "| what | figure | goal |", "|---|---:|---:|"]
    return ["\n".join([*head, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])]


def first_rows(path: Path) -> list[tuple[str, str, str]]:
    """What the first filters of a root cost, which read records and configs."""
    root = CheckpointRoot(path)
    records = seconds(lambda: root.experiments(where="samples > 0", limit=1))
    configs = seconds(lambda: root.experiments(where="config.number = 1"))
    return [
        ("first filter of a root: reads all records", f"{records:.1f} s", ""),
        ("first filter on a config value: reads all configs", f"{configs:.1f} s", ""),
    ]


def filter_rows(path: Path, rounds: int) -> list[tuple[str, str, str]]:
    """Filters over all checkpoints, in a process that has asked before."""
    root, rows = CheckpointRoot(path), []
    for where, what in FILTERS:
        count = len(root.checkpoints(where=where))
        figures = [
            seconds(lambda where=where: root.checkpoints(where=where)) for _ in range(rounds)
        ]
        rows.append((f"{what}: {count} of all match", milliseconds(figures), "<= 100 ms"))
    best = [
        seconds(lambda: root.checkpoints(where="metric.loss < 0.9", order="metric.loss", limit=50))
        for _ in range(rounds)
    ]
    return [*rows, ("the best 50 of nine tenths", milliseconds(best), "<= 100 ms")]


def listing_rows(path: Path, rounds: int) -> list[tuple[str, str, str]]:
    """The rows of `ls`, with the import, in a new process."""
    command = [sys.executable, "-c", LISTING, str(path)]
    figures = [float(subprocess.check_output(command)) for _ in range(rounds)]
    return [("rows of the newest 50 experiments, new process", milliseconds(figures), "<= 150 ms")]


# ---------------------------------------------------------------- the root
def make_root(path: Path, num_experiments: int) -> None:
    """Write experiments as a search over learning rates leaves them."""
    CheckpointRoot(path)
    chance = random.Random(0)
    for number in range(num_experiments):
        config = config_of(chance, number)
        digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
        record = ExperimentRecord(
            components=Components(model=digest, config=describe_config(config).digest),
            created_at=ORIGIN + timedelta(seconds=number * NUM_STEPS),
            facts={
                "model_class": chance.choice(["Net", "Wide", "Deep"]),
                "num_parameters": 1000 + number,
                "num_samples": chance.randrange(800, 1000),
            },
        )
        folder = path / "checkpoints" / record.exp_hash
        for name in ("model", "hp"):
            (folder / name).mkdir(parents=True)
        (path / experiment_key(record.exp_hash)).write_bytes(record.to_bytes())
        file = path / config_key(record.exp_hash)
        file.write_bytes(config_to_bytes(config, name=file.name))
        write_checkpoints(folder, record, chance, number)
        if number % TAGGED == 0:
            write_notes(folder, record, number)


def config_of(chance: random.Random, number: int) -> dict[str, Any]:
    """Return a config of 20 keys."""
    return {
        "number": number,
        "optimizer": {
            "name": chance.choice(["adam", "sgd"]),
            "lr": 10 ** chance.uniform(-4, -1),
            "betas": [0.9, 0.999],
            "weight_decay": 0.01,
        },
        "model": {"hidden": chance.choice([64, 128]), "layers": 4, "dropout": 0.1, "norm": "layer"},
        "data": {"root": "data", "workers": 4, "augment": True, "crop": 224, "mix": None},
        "schedule": {"warmup": 100, "steps": 2000, "kind": "cosine"},
        "precision": "bf16",
    }


def write_checkpoints(
    folder: Path, record: ExperimentRecord, chance: random.Random, number: int
) -> None:
    """Write the manifests of an experiment."""
    template = template_of(record.exp_hash)
    for step in range(1, NUM_STEPS + 1):
        name = CheckpointName(exp_hash=record.exp_hash, step=step)
        metrics = f'"metrics":{{"accuracy":{chance.random()},"loss":{chance.random()}}}'
        (folder / "model" / f"{name.stem}.json").write_bytes(
            fill(
                template.replace('"metrics":{}', metrics),
                name,
                ORIGIN + timedelta(seconds=number * NUM_STEPS + step),
            )
        )
    os.utime(folder / "model", (0, 0))  # a folder counts as settled after a minute


def write_notes(folder: Path, record: ExperimentRecord, number: int) -> None:
    """Give an experiment a name and a tag."""
    (folder / "notes").mkdir()
    for kind, text in (("name", f"run {number}"), ("tag", "paper")):
        note = Note(kind=kind, exp_hash=record.exp_hash, text=text, created_at=ORIGIN)
        (folder / "notes" / f"20260101T000000000000Z_{kind}_{0:016x}.json").write_bytes(
            note.to_bytes()
        )
