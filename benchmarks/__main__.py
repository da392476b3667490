"""`python -m benchmarks [SECTION ...] [--dir FOLDER] [--rounds N] [--write docs/benchmarks.md]`.

Each section runs in a process of its own, so that none inherits the memory of another.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

import torch

INTRO = """# Benchmarks

Medians of interleaved runs (each round in another order), each section in a process of its own; ratios hold,
absolute times depend on the machine. `make bench` measures again; `python -m benchmarks large --write docs/benchmarks.md`
replaces one section of this page.
"""
# name -> module, heading, the most rounds that are worth their time, whether it needs a folder
SECTIONS = {
    "saves": ("save_load", "Saving and loading", 15, True),
    "large": ("large_state", "A state of 1.5 GB", 5, True),
    "loads": ("load_cost", "Loading into objects that exist", 9, True),
    "pace": ("pace_cost", "Deciding when to save", 15, True),
    "preempt": ("preempt_cost", "Told to end", 5, True),
    "catalog": ("catalog_cost", "The catalog", 9, False),
    "queries": ("query_cost", "Queries", 9, False),
    "identity": ("identity_cost", "Identity", 15, False),
    "samples": ("sample_cost", "Ten million samples", 5, True),
    "compare": ("compare_cost", "Comparing", 5, True),
    "lineage": ("lineage_cost", "Lineage and audit", 5, False),
    "retention": ("retention_cost", "Retention", 5, True),
    "cli": ("cli_cost", "The command line", 9, False),
    "care": ("care_cost", "Provenance, usage and doctor", 5, False),
    "imports": ("import_time", "Import", 7, False),
    "import": ("import_cost", "Importing checkpoints of others", 5, True),
}


def run_section(name: str, folder: Path | None, rounds: int) -> str:
    """Measure one section in this process; return its part of the page."""
    module, heading, most, needs_folder = SECTIONS[name]
    torch.set_num_threads(os.cpu_count() or 1)
    measure = import_module(f"benchmarks.{module}").main
    rounds = min(rounds, most)
    if needs_folder:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            tables = measure(Path(place), rounds=rounds)
    else:
        tables = measure(rounds=rounds)
    machine = (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, "
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {rounds} rounds."
    )
    return f"## {heading}\n\n{machine}\n\n" + "\n\n".join(tables) + "\n"


def in_own_process(name: str, arguments: argparse.Namespace) -> str:
    """Measure one section in a new process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        name,
        "--inside",
        "--rounds",
        str(arguments.rounds),
    ]
    if arguments.dir:
        command += ["--dir", str(arguments.dir)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def merged(page: str, parts: dict[str, str]) -> str:
    """Return the page with the given sections replaced, all in the order of `SECTIONS`."""
    found = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    old = {heading: f"## {heading}\n{body.rstrip()}\n" for heading, body in found.items()}
    new = {SECTIONS[name][1]: text for name, text in parts.items()}
    headings = [heading for _, heading, _, _ in SECTIONS.values()]
    return "\n".join([INTRO, *((old | new)[h] for h in headings if h in old | new)])


def main() -> None:
    """Run the sections, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="replace the sections in this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(run_section(arguments.sections[0], arguments.dir, arguments.rounds), end="")
        return
    parts = {}
    for name in arguments.sections or SECTIONS:
        parts[name] = in_own_process(name, arguments)
        print(parts[name], flush=True)
        if arguments.write:
            before = arguments.write.read_text() if arguments.write.exists() else ""
            arguments.write.write_text(merged(before, parts))


if __name__ == "__main__":
    main()
