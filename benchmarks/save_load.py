"""Durable save and verified load of a model with AdamW, against torch and safetensors."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from benchmarks.timing import Candidate, Row, interleave, table
from weightslab.components import CheckpointManagerV2

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"100k": (160, 4), "25M": (1768, 8)}  # width and depth of an MLP


def build(size: str, *, steps: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model and an AdamW that has made some steps."""
    torch.manual_seed(0)
    width, depth = SIZES[size]
    layers = [
        layer for _ in range(depth) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())
    ]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        model(torch.randn(2, width)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def fsync(path: Path) -> None:
    """Put file and folder entry on disk."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def flat(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return every tensor of the state under a name of its own."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    return tensors


def change(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Change every tensor a little, so that no save finds its bytes on disk already."""
    with torch.no_grad():
        for tensor in flat(model, optimizer).values():
            tensor.add_(1e-6 if tensor.is_floating_point() else 1)


def savers(folder: Path, model, optimizer) -> list[Candidate]:
    """Return the ways to save."""
    manager = CheckpointManagerV2(folder / "root")
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    image = [t.detach().contiguous().view(-1).numpy() for t in flat(model, optimizer).values()]

    def raw(_: int) -> None:
        path = folder / "raw.bin"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for part in image:
            data = memoryview(part).cast("B")
            while data:
                data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
        os.close(descriptor)
        fsync(path)

    def by_torch(_: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, folder / "torch.pt")
        fsync(folder / "torch.pt")

    def by_safetensors(_: int) -> None:
        save_file(flat(model, optimizer), folder / "all.safetensors")
        fsync(folder / "all.safetensors")

    def by_us(number: int) -> None:
        manager.save_model_checkpoint(model, step=number + 1, optimizer=optimizer)

    def drop(name: str):
        return lambda _: (folder / name).unlink()

    def drop_ours(number: int) -> None:
        manager.root.delete(manager.current_hash, step=number + 1)

    def prepare(_: int) -> None:
        """Change the state, and leave each way the same memory: pages that were just freed.

        A virtual machine takes pages back that stay free for seconds; who writes next pays for it.
        """
        change(model, optimizer)
        scratch = folder / "scratch.bin"
        with scratch.open("wb") as file:
            file.writelines(image)
        scratch.unlink()

    return [
        Candidate("raw write + fsync", raw, prepare, drop("raw.bin")),
        Candidate("safetensors + fsync", by_safetensors, prepare, drop("all.safetensors")),
        Candidate("torch.save + fsync", by_torch, prepare, drop("torch.pt")),
        Candidate("weightslab (digests, manifest, durable)", by_us, prepare, drop_ours),
    ]


def prepare_loads(folder: Path, size: str) -> None:
    """Save one state in every way."""
    model, optimizer = build(size)
    manager = CheckpointManagerV2(folder / "root")
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    manager.save_model_checkpoint(model, step=999, optimizer=optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "torch.pt")
    save_file(flat(model, optimizer), folder / "all.safetensors")


def load_by_torch(folder: Path, model, optimizer) -> None:
    """Read everything, then hand it over."""
    found = torch.load(folder / "torch.pt", weights_only=True)
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])


def load_by_safetensors(folder: Path, model, optimizer) -> None:
    """Map, hand over; the optimizer keeps the mapped tensors, which are read later."""
    found = load_file(folder / "all.safetensors")
    model.load_state_dict({k[6:]: v for k, v in found.items() if k.startswith("model.")})
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in found.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            states.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def load_by_us(folder: Path, model, optimizer) -> None:
    """Verify every byte, check that all fits, copy."""
    manager = CheckpointManagerV2(folder / "root", read_only=True)
    manager.load_checkpoint(999, model=model, optimizer=optimizer)


LOADERS = {
    "torch.load + load_state_dict": load_by_torch,
    "safetensors + load_state_dict (optimizer lazily)": load_by_safetensors,
    "weightslab (every byte verified)": load_by_us,
}


def load_once(name: str, folder: Path, size: str) -> tuple[float, float]:
    """Load into a new model and optimizer; return wall and CPU seconds."""
    model, optimizer = build(size, steps=0)
    cpu_start, start = time.process_time(), time.perf_counter()
    LOADERS[name](folder, model, optimizer)
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure_loads(folder: Path, size: str, *, rounds: int) -> list[Row]:
    """Load in fresh processes, in turn: what a resume does, with memory that is new to it."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.save_load import load_once;"
        "print(*load_once(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))"
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    for _ in range(rounds):
        for name, figures in found.items():
            command = [sys.executable, "-c", code, name, str(folder), size]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            wall, cpu = map(float, done.stdout.split())
            figures.append((wall, cpu))
    return [
        Row(
            name,
            statistics.median(wall for wall, _ in figures),
            statistics.median(cpu for _, cpu in figures),
            min(wall for wall, _ in figures),
            max(wall for wall, _ in figures),
        )
        for name, figures in found.items()
    ]


def main(folder: Path, *, rounds: int = 9) -> list[str]:
    """Measure and return the tables."""
    tables = []
    for size in SIZES:
        place = folder / size
        place.mkdir()
        model, optimizer = build(size)
        rows = interleave(savers(place, model, optimizer), rounds=rounds)
        tables.append(
            table(
                f"Durable save, {size} parameters with AdamW",
                rows,
                relative_to="safetensors + fsync",
            )
        )
        prepare_loads(place, size)
        rows = measure_loads(place, size, rounds=max(5, rounds // 2))
        tables.append(
            table(
                f"First load in a process, {size} parameters with AdamW",
                rows,
                relative_to="torch.load + load_state_dict",
            )
        )
        shutil.rmtree(place)
    return tables
