"""The command line in a root of 10,000 experiments x 20 steps: whole processes, from start to exit.

The catalog of the root has been built before, as by any earlier call; building it is in the section on the
catalog. Compiled files lie beside the sources, as in an installed package.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.catalog_cost import make_root
from weightslab.engine.repository.index_file import INDEX_VARIABLE
from weightslab.engine.root import CheckpointRoot

_UNSEEN = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def main(*, num_experiments: int = 10_000, rounds: int = 9) -> list[str]:
    """Measure, and return the table."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="weightslab-bench-", dir=in_memory))
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment = {
        **kept,
        INDEX_VARIABLE: str(folder / "catalogs"),
        "WEIGHTSLAB_ROOT": str(folder / "root"),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
    }
    try:
        make_root(folder / "root", num_experiments)
        some = CheckpointRoot(folder / "root", read_only=True).catalog.exp_hashes()[5]
        asked = [
            ("python -c pass", "", [sys.executable, "-c", "pass"]),
            *(
                (f"weightslab {words}", goal, [sys.executable, "-m", "weightslab", *words.split()])
                for words, goal in (
                    ("--help", "<= 0.25 s"),
                    ("ls", "<= 0.5 s"),
                    (f"show {some[:8]}", "<= 0.3 s"),
                    ("tree", "<= 1.5 s"),
                    ("ls --checkpoints --where step=7 --limit 30", ""),
                    ("ls --limit 0", ""),
                )
            ),
        ]
        rows = [_row(name, goal, command, environment, rounds) for name, goal, command in asked]
    finally:
        shutil.rmtree(folder)
    title = f"### Whole processes, {num_experiments:,} experiments x 20 checkpoints"
    head = [title, "", "| command | median | best | CPU | goal |", "|---|---:|---:|---:|---:|"]
    return ["\n".join([*head, *rows])]


def _row(name: str, goal: str, command: list[str], environment: dict[str, str], rounds: int) -> str:
    """Run a command once to warm up, then `rounds` times."""
    walls, cpus = [], []
    for number in range(rounds + 1):
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, env=environment, check=True, **_UNSEEN)
        wall, after = time.perf_counter() - start, os.times()
        if number:
            walls.append(wall)
            cpus.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
    figures = (statistics.median(walls), min(walls), statistics.median(cpus))
    return f"| `{name}` | " + " | ".join(f"{f:.2f} s" for f in figures) + f" | {goal} |"


if __name__ == "__main__":
    print("\n".join(main()))
