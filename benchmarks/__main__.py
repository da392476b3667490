"""`python -m benchmarks [--dir FOLDER] [--rounds N] [--write docs/benchmarks.md]`."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import torch

from benchmarks import identity_cost, import_time, sample_cost, save_load

INTRO = """# Benchmarks

Medians of interleaved runs (each round in another order) in one process; ratios hold, absolute times
depend on the machine. `make bench` measures again; `python -m benchmarks --write docs/benchmarks.md` rewrites
this page.

"""


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="write the page to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        tables = save_load.main(Path(folder), rounds=arguments.rounds)
        tables += sample_cost.main(Path(folder), rounds=min(arguments.rounds, 3))
    tables += identity_cost.main(rounds=arguments.rounds)
    tables += import_time.main()
    machine = (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, "
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {arguments.rounds} rounds."
    )
    page = INTRO + machine + "\n\n" + "\n\n".join(tables) + "\n"
    print(page)
    if arguments.write:
        arguments.write.write_text(page)


if __name__ == "__main__":
    main()
