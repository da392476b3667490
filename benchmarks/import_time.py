"""What `import weightslab.components` and its two doors cost on top of `import torch`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

CODE = """
import sys, time
import torch
start = time.perf_counter()
import weightslab.components
first = time.perf_counter()
from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
second = time.perf_counter()
heavy = sorted({"h5py", "sqlite3", "typer", "rich"} & set(sys.modules))
print(first - start, second - start, ",".join(heavy) or "none")
"""


def main(*, rounds: int = 7) -> list[str]:
    """Measure in fresh processes and return the table."""
    # as installed packages are: with compiled files beside the sources, made by a first run
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.split()
        for _ in range(rounds + 1)
    ][1:]
    package, doors = (statistics.median(float(o[i]) for o in outputs) for i in (0, 1))
    return [
        (
            "### Import on top of torch\n\n"
            "| what | median |\n|---|---:|\n"
            f"| `import weightslab.components` | {package * 1e3:.1f} ms |\n"
            f"| and both doors (`CheckpointManagerV2`, `ExperimentHashGenerator`) "
            f"| {doors * 1e3:.1f} ms |\n"
            f"| of h5py, sqlite3, typer, rich imported | {outputs[0][2]} |"
        )
    ]
