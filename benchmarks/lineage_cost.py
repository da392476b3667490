"""Lineage and audit: the tree of 10,000 experiments, and a million samples in 1,000 experiments."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.catalog_cost import NUM_STEPS, ORIGIN, fill, milliseconds, seconds, template_of
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.index_file import INDEX_VARIABLE
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.root import CheckpointRoot

NUM_SAMPLES = 1_000_000
NUM_DISCARDED = 50  # by each experiment, on top of its parent
CHECKPOINTS = 3  # of each audited experiment
FRESH = '"parent":{"exact":true,"exp_hash":null,"kind":"fresh","manifest_digest":null,"revision":null,"step":null,"via":[]}'


def main(*, num_experiments: int = 10_000, rounds: int = 5) -> list[str]:
    """Measure, and return the tables."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="weightslab-bench-", dir=in_memory))
    before = os.environ.get(INDEX_VARIABLE)
    os.environ[INDEX_VARIABLE] = str(folder / "catalogs")
    try:
        make_tree(folder / "tree", num_experiments)
        make_audited(folder / "audit", num_experiments // 10)
        rows = [*tree_rows(folder / "tree", rounds), *audit_rows(folder / "audit", rounds)]
    finally:
        os.environ.pop(INDEX_VARIABLE)
        if before is not None:
            os.environ[INDEX_VARIABLE] = before
        shutil.rmtree(folder)
    title = f"### Tree of {num_experiments:,} experiments, audit of {num_experiments // 10:,}"
    head = [title, "", "| what | figure | goal |", "|---|---:|---:|"]
    return ["\n".join([*head, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])]


# ---------------------------------------------------------------- roots
def make_tree(path: Path, num_experiments: int) -> None:
    """Write a tree in which each experiment left another one at its tenth step; three leave each."""
    CheckpointRoot(path)
    hashes: list[str] = []
    tenth: dict[str, str] = {}
    for number in range(num_experiments):
        digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
        above = hashes[(number - 1) // 3] if number else None
        record = ExperimentRecord(
            components=Components(config=digest),
            created_at=ORIGIN + timedelta(seconds=number),
            changed_from=above
            and {"exp_hash": above, "changes": [f"lr: {number} -> {number + 1}"]},
        )
        hashes.append(record.exp_hash)
        folder = path / "checkpoints" / record.exp_hash
        (folder / "model").mkdir(parents=True)
        (folder / "experiment.json").write_bytes(record.to_bytes())
        parent = None if above is None else (above, 10, tenth[above])
        digests = write_line(folder / "model", record.exp_hash, NUM_STEPS, number, parent)
        tenth[record.exp_hash] = digests[9]


def write_line(folder, exp_hash, num_steps, number, parent) -> list[str]:
    """Write the manifests of one experiment, each the parent of the next; returns their digests."""
    template, digests = template_of(exp_hash), []
    assert FRESH in template, "the layout of a manifest has changed"
    for step in range(1, num_steps + 1):
        own = template if parent is None else template.replace(FRESH, parent_text(*parent))
        name = CheckpointName(exp_hash=exp_hash, step=step)
        moment = ORIGIN + timedelta(seconds=number * num_steps + step)
        data = fill(own, name, moment)
        (folder / f"{name.stem}.json").write_bytes(data)
        digests.append(json.loads(data)["digest"])
        parent = exp_hash, step, digests[-1]
    os.utime(folder, (0, 0))  # a folder counts as settled after a minute
    return digests


def parent_text(exp_hash: str, step: int, digest: str) -> str:
    """Return the parent link of a manifest as text."""
    link = {"kind": "checkpoint", "exp_hash": exp_hash, "step": step, "revision": 1}
    link |= {"manifest_digest": digest, "via": [], "exact": True}
    return '"parent":' + json.dumps(link, sort_keys=True, separators=(",", ":"))


def make_audited(path: Path, num_experiments: int) -> None:
    """Write experiments over one base, each without 50 more samples than the one it left."""
    root, draw = CheckpointRoot(path), random.Random(0)
    sets, hashes, last = [SampleSet.from_uids(range(NUM_SAMPLES)).frozen()], [], {}
    for number in range(num_experiments):
        above = (number - 1) // 3 if number else None
        samples = sets[0] if above is None else sets[above].copy()
        if above is not None:
            samples.discard(
                [u for u in draw.sample(range(NUM_SAMPLES), NUM_DISCARDED) if u in samples]
            )
            sets.append(samples.frozen())
        digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
        record = ExperimentRecord(
            components=Components(config=digest, data=sets[number].digest), created_at=ORIGIN
        )
        open_experiment(root.store, record, ExperimentContent(samples=sets[number]))
        folder = path / "checkpoints" / record.exp_hash / "model"
        folder.mkdir(exist_ok=True)
        parent = None if above is None else (hashes[above], CHECKPOINTS, last[hashes[above]])
        hashes.append(record.exp_hash)
        last[record.exp_hash] = write_line(folder, record.exp_hash, CHECKPOINTS, number, parent)[-1]


# ---------------------------------------------------------------- figures
TREE = """
import sys
from weightslab.engine.root import CheckpointRoot
print(CheckpointRoot(sys.argv[1], read_only=True).lineage())
"""
AUDIT = """
import sys, time
from weightslab.engine.root import CheckpointRoot
start = time.perf_counter()
report = CheckpointRoot(sys.argv[1], read_only=True).audit(range(500_000, 500_010))
print(time.perf_counter() - start, report.counts, file=sys.stderr)
"""


def process(script: str, path: Path) -> tuple[float, str]:
    """Return the seconds of a whole process, and what it said beside its output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - start, done.stderr


def tree_rows(path: Path, rounds: int) -> list[tuple[str, str, str]]:
    """The tree in new processes, and in one that has the root open."""
    CheckpointRoot(path).latest()
    whole = [process(TREE, path)[0] for _ in range(rounds)]
    root = CheckpointRoot(path, read_only=True)
    str(root.lineage())
    again = [seconds(lambda: str(root.lineage())) for _ in range(rounds)]
    deepest = root.list_hashes()[-1]
    back = [seconds(lambda: root.history(deepest)) for _ in range(rounds)]
    return [
        ("`print(root.lineage())`, whole process", milliseconds(whole), "<= 1.5 s"),
        ("the same, root open", milliseconds(again), ""),
        ("history of the deepest checkpoint", milliseconds(back), ""),
    ]


def audit_rows(path: Path, rounds: int) -> list[tuple[str, str, str]]:
    """An audit of 10 samples: the first of a root, in a new process, and once more in one process."""
    first = float(process(AUDIT, path)[1].split()[0])
    cold = [float(process(AUDIT, path)[1].split()[0]) for _ in range(rounds)]
    root = CheckpointRoot(path, read_only=True)
    uids = range(500_000, 500_010)
    root.audit(uids)
    warm = [seconds(lambda: root.audit(uids)) for _ in range(rounds)]
    many = [seconds(lambda: root.audit(range(1000))) for _ in range(rounds)]
    told = [seconds(lambda: root.sample_history(500_000)) for _ in range(rounds)]
    return [
        ("audit of 10 samples, the first ever of this root", f"{first:.1f} s", ""),
        ("the same in a new process, from then on", milliseconds(cold), "<= 1 s"),
        ("the same, root open", milliseconds(warm), "<= 1 s"),
        ("audit of 1,000 samples, root open", milliseconds(many), ""),
        ("history of one sample, root open", milliseconds(told), ""),
    ]
