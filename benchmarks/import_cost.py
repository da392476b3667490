"""Importing 100 checkpoints of 50 MB: seconds beside copying the files, memory, and shared tensors.

`python -m benchmarks import --dir FOLDER` prints the tables; `WEIGHTSLAB_IMPORT_FILES=20` makes it short.
The page cache is warm for all. What a copy leaves in memory alone is shown too: an import has its
bytes on disk when it returns.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import torch

from benchmarks.timing import Candidate, interleave, table

if TYPE_CHECKING:
    from pathlib import Path

FILES = int(os.environ.get("WEIGHTSLAB_IMPORT_FILES", "100"))
LAYERS = 12
WIDTH = 1024  # 12 float32 matrices of 4 MiB: 50 MB
COPY = "copy"
SYNCED = "copy + fsync"
OURS = "import_root"
# in a process of its own, which has imported what an import needs before
PEAK = """
import json, sys, threading
from weightslab.formats import import_root
import_root(sys.argv[1], sys.argv[3])  # a small one first
def resident():
    # Pss: torch maps the same pages again, which VmRSS counts twice
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
before, peak, done = resident(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], resident())
thread = threading.Thread(target=watch); thread.start()
assert import_root(sys.argv[2], sys.argv[3]).is_complete
done.set(); thread.join()
print(json.dumps(peak[0] - before))
"""


def prepare(folder: Path, kind: str, files: int, *, shared: int = 0, seed: int = 0) -> None:
    """Write checkpoints of which the first `shared` matrices are the same in all."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    frozen = {f"{n}.weight": torch.randn(WIDTH, WIDTH, generator=generator) for n in range(shared)}
    for number in range(files):
        weights = frozen | {
            f"{n}.weight": torch.randn(WIDTH, WIDTH, generator=generator)
            for n in range(shared, LAYERS)
        }
        state = {"state_dict": weights, "global_step": number, "pytorch-lightning_version": "2.6"}
        if kind == "lightning":
            torch.save(state, folder / f"epoch=0-step={number}.ckpt")
        else:
            torch.save(weights, folder / f"model_step_{number:03}.pt")


def copy(source: Path, target: Path, *, sync: bool) -> None:
    """Copy the files one after the other."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)
        if sync:
            descriptor = os.open(target / path.name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def measure(folder: Path, kind: str, rounds: int) -> str:
    """Return the table of one kind of source."""
    from weightslab.formats import import_root

    source, target = folder / kind, folder / "target"
    prepare(source, kind, FILES)

    def clean(_: int) -> None:
        shutil.rmtree(target, ignore_errors=True)
        os.sync()

    def ours(_: int) -> None:
        assert import_root(source, target).is_complete

    candidates = [
        Candidate(COPY, lambda _: copy(source, target, sync=False), before=clean, after=clean),
        Candidate(SYNCED, lambda _: copy(source, target, sync=True), before=clean, after=clean),
        Candidate(OURS, ours, before=clean, after=clean),
    ]
    total = sum(path.stat().st_size for path in source.iterdir())
    rows = interleave(candidates, rounds=rounds, warmup=0)
    title = f"{FILES} files ({kind}), {total / 1e9:.2f} GB"
    return table(title, rows, relative_to=SYNCED)


def memory(folder: Path, kind: str) -> str:
    """Return how far the memory of an import (Pss) goes above that before it."""
    small = folder / "small"
    if not small.exists():
        prepare(small, "torch", 1, seed=1)
    command = [sys.executable, "-c", PEAK, str(small), str(folder / kind), str(folder / "target")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(folder / "target")
    largest = max(path.stat().st_size for path in (folder / kind).iterdir())
    peak = json.loads(done.stdout)
    return f"{kind}: {peak / 1e6:.0f} MB above before, {peak / largest:.2f} x the largest file"


def sharing(folder: Path) -> str:
    """Return the bytes on disk of checkpoints that share 9 of 12 matrices."""
    from weightslab.formats import import_root

    files = min(FILES, 20)
    prepare(folder / "shared", "lightning", files, shared=9)
    assert import_root(folder / "shared", folder / "target").is_complete
    found = {p.stat().st_ino: p.stat().st_size for p in (folder / "target").rglob("*.safetensors")}
    distinct = (9 + 3 * files) * WIDTH * WIDTH * 4
    shutil.rmtree(folder / "target")
    return (
        f"{files} files that share 9 of 12 matrices: {sum(found.values()) / 1e6:.0f} MB on disk, "
        f"{distinct / 1e6:.0f} MB of distinct tensors"
    )


def main(folder: Path, *, rounds: int) -> list[str]:
    """Return the tables."""
    parts = [measure(folder, kind, rounds) for kind in ("torch", "lightning")]
    lines = [memory(folder, kind) for kind in ("torch", "lightning")] + [sharing(folder)]
    return [*parts, "### Memory and disk\n\n" + "\n".join(f"* {line}" for line in lines)]
