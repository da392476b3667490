"""Loading into a model and an AdamW that exist: seconds, and memory beside the state.

`python -m benchmarks.load_cost --dir FOLDER` prints the tables. The page cache is warm for all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.large_state import Gpt
from benchmarks.save_load import flat
from benchmarks.timing import Candidate, interleave, table
from weightslab.components import CheckpointManagerV2

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"300 MB": (384, 3), "1.5 GB": (768, 12)}  # width and depth; model and AdamW together
RAW = "raw read into the tensors"
TORCH = "torch.load + copy"
MAPPED = "torch.load(mmap=True) + copy"
OURS = "weightslab (every byte verified)"
SIZE = 'weightslab (verify="size")'


def build(size: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model and an AdamW with moments."""
    torch.manual_seed(0)
    model = Gpt(*SIZES[size])
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.randn_like(parameter.detach()),
            "exp_avg_sq": torch.rand_like(parameter.detach()),
        }
    return model, optimizer


def prepare(folder: Path, size: str) -> None:
    """Save the state once with torch and once with weightslab."""
    model, optimizer = build(size)
    with CheckpointManagerV2(folder / "root") as manager:
        manager.update_experiment_hash(model=model, config={"lr": 1e-3})
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "torch.pt")


def loaders(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Callable[[int], object]]:
    """Return the ways to load."""
    manager = CheckpointManagerV2(folder / "root", read_only=True)
    paths = sorted((folder / "root").rglob("*.safetensors"))
    views = [
        memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())
        for tensor in flat(model, optimizer).values()
    ]

    def raw(_: int) -> None:
        targets = iter(views)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                left = path.stat().st_size
                while left > 0 and (view := next(targets, None)) is not None:
                    left -= file.readinto(view)  # a tensor at the edge of a file is cut, no more

    def by_torch(_: int, *, mmap: bool = False) -> None:
        found = torch.load(folder / "torch.pt", weights_only=True, mmap=mmap)
        model.load_state_dict(found["model"])
        with torch.no_grad():
            for index, state in found["optimizer"]["state"].items():
                live = optimizer.state[optimizer.param_groups[0]["params"][index]]
                for key, tensor in state.items():
                    live[key].copy_(tensor)

    def by_us(_: int, **options: object) -> None:
        manager.load_checkpoint(1, model=model, optimizer=optimizer, **options)

    return {
        RAW: raw,
        TORCH: by_torch,
        MAPPED: lambda n: by_torch(n, mmap=True),
        OURS: by_us,
        SIZE: lambda n: by_us(n, verify="size"),
        "weightslab, weights alone": lambda n: by_us(n, load_optimizer=False),
    }


def anonymous_bytes() -> int:
    """Return the resident memory of this process without pages of mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell RssAnon")


def peak_of(name: str, folder: Path, size: str) -> float:
    """Load twice and return the peak of extra memory in the second load, as part of the state."""
    model, optimizer = build(size)
    run = loaders(folder, model, optimizer)[name]
    run(0)
    before, peak, done = anonymous_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run(1)
    done.set()
    watcher.join()
    state = sum(t.numel() * t.itemsize for t in flat(model, optimizer).values())
    return max(peak, anonymous_bytes() - before) / state


def measure_memory(folder: Path, size: str) -> list[str]:
    """Measure each way in a process of its own."""
    lines = [
        f"### Memory beside the state while it is loaded, {size}",
        "",
        "| way | part of the state |",
        "|---|---:|",
    ]
    code = (
        "import sys; from pathlib import Path; from benchmarks.load_cost import peak_of;"
        "print(peak_of(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))"
    )
    for name in (TORCH, MAPPED, OURS):
        command = [sys.executable, "-c", code, name, str(folder), size]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines.append(f"| {name} | {float(done.stdout) * 100:.1f} % |")
    return lines


def main(folder: Path, *, rounds: int = 9, sizes: tuple[str, ...] = tuple(SIZES)) -> list[str]:
    """Measure and return the tables."""
    tables = []
    for size in sizes:
        place = folder / size.replace(" ", "_")
        place.mkdir()
        prepare(place, size)
        ways = loaders(place, *build(size))
        rows = interleave([Candidate(name, run) for name, run in ways.items()], rounds=rounds)
        of = {row.name: row.wall for row in rows}
        title = f"Load of {size} into a model and an AdamW that exist"
        tables.append(table(title, rows, relative_to=RAW))
        tables.append(
            f"weightslab: {of[OURS] / of[RAW]:.2f} x raw read (goal 1.3), "
            f"{of[OURS] / of[TORCH]:.2f} x torch.load + copy (goal 0.3)."
        )
        tables.append("\n".join(measure_memory(place, size)))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", choices=tuple(SIZES), nargs="*", default=tuple(SIZES))
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(dir=given.dir) as temporary:
        print("\n\n".join(main(Path(temporary), rounds=given.rounds, sizes=tuple(given.size))))
