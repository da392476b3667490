"""Provenance, usage and doctor: what an opening pays for its record, and how long a large root takes.

The root is that of `catalog_cost`: manifests and records, beside which tensor files are put that are holes.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.catalog_cost import NUM_STEPS, ORIGIN, make_root
from weightslab.engine.provenance import recording
from weightslab.engine.provenance.git import MAX_DIFF_BYTES, read_code_state
from weightslab.engine.repository.index_file import INDEX_VARIABLE
from weightslab.engine.root import CheckpointRoot

if TYPE_CHECKING:
    from collections.abc import Callable


def main(*, num_experiments: int = 1_000, rounds: int = 5) -> list[str]:
    """Measure, and return the table."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="weightslab-bench-", dir=in_memory))
    before = os.environ.get(INDEX_VARIABLE)
    os.environ[INDEX_VARIABLE] = str(folder / "catalogs")
    try:
        make_root(folder / "large", num_experiments)
        add_holes(folder / "large")
        rows = [
            *opening_rows(folder, rounds),
            *root_rows(folder / "large", num_experiments, rounds),
        ]
    finally:
        os.environ.pop(INDEX_VARIABLE)
        if before is not None:
            os.environ[INDEX_VARIABLE] = before
        shutil.rmtree(folder)
    lines = [
        "| what | time |",
        "|---|---|",
        *(f"| {what} | {seconds * 1e3:,.1f} ms |" for what, seconds in rows),
    ]
    return ["\n".join(lines)]


def add_holes(root: Path) -> None:
    """Make the tensor files that the manifests name, without content."""
    for path in root.glob("checkpoints/*/model/*_step_*.json"):
        for name, file in json.loads(path.read_bytes())["files"].items():
            with path.with_name(name).open("wb") as hole:
                hole.truncate(file["size_bytes"])


def opening_rows(folder: Path, rounds: int) -> list[tuple[str, float]]:
    """Measure what a process pays once, and what each opening pays."""
    redactor = recording.redactor_of(os.environ)
    here, command = Path.cwd(), ["python", "train.py"]
    source = (Path(__file__).parent / "catalog_cost.py").read_text(encoding="utf-8")
    long = (source * (1 + MAX_DIFF_BYTES // len(source)))[:MAX_DIFF_BYTES]
    root = CheckpointRoot(folder / "small")
    numbers = iter(range(10**6))
    recording.record_provenance(root.store, "f" * 16, clock=lambda: ORIGIN)
    return [
        ("four calls of git in this repository", median(lambda: read_code_state(here), rounds)),
        (
            "all facts of a session, once a process",
            median(lambda: recording.collect(here, command, redactor), rounds),
        ),
        ("redacting a diff of 256 KiB", median(lambda: redactor.text(long), rounds)),
        (
            "record beside a new experiment (in memory)",
            median(
                lambda: recording.record_provenance(
                    root.store, f"{next(numbers):016x}", clock=lambda: ORIGIN
                ),
                rounds,
            ),
        ),
        (
            "the same session again",
            median(
                lambda: recording.record_provenance(root.store, "f" * 16, clock=lambda: ORIGIN),
                rounds,
            ),
        ),
    ]


def root_rows(path: Path, num_experiments: int, rounds: int) -> list[tuple[str, float]]:
    """Measure usage and doctor."""
    size = f"{num_experiments:,} x {NUM_STEPS}"
    first = once(lambda: CheckpointRoot(path, read_only=True).doctor())
    return [
        (
            f"`usage` of {size}",
            median(lambda: CheckpointRoot(path, read_only=True).usage(), rounds),
        ),
        (f"`doctor` of {size}, without a catalog", first),
        (
            f"`doctor` of {size}",
            median(lambda: CheckpointRoot(path, read_only=True).doctor(), min(rounds, 3)),
        ),
    ]


def median(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of the work in seconds."""
    return statistics.median(once(work) for _ in range(rounds))


def once(work: Callable[[], object]) -> float:
    """Return the time of the work in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
