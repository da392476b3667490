"""Durable save and verified load of a model with AdamW, against torch and safetensors."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from benchmarks.timing import Candidate, interleave, table
from weightslab.components import CheckpointManagerV2

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"100k": (160, 4), "25M": (1768, 8)}  # width and depth of an MLP


def build(size: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model and an AdamW that has made one step."""
    torch.manual_seed(0)
    width, depth = SIZES[size]
    layers = [
        layer for _ in range(depth) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())
    ]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
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

    touch = lambda _: change(model, optimizer)  # noqa: E731
    return [
        Candidate("raw write + fsync", raw, touch, drop("raw.bin")),
        Candidate("safetensors + fsync", by_safetensors, touch, drop("all.safetensors")),
        Candidate("torch.save + fsync", by_torch, touch, drop("torch.pt")),
        Candidate("weightslab (digests, manifest, durable)", by_us, touch, drop_ours),
    ]


def loaders(folder: Path, size: str, model, optimizer) -> list[Candidate]:
    """Return the ways to load into a model and an optimizer that exist."""
    live, live_optimizer = build(size)
    manager = CheckpointManagerV2(folder / "root")
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    manager.save_model_checkpoint(model, step=999, optimizer=optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "torch.pt")
    save_file(flat(model, optimizer), folder / "all.safetensors")
    groups = optimizer.state_dict()["param_groups"]

    def by_torch(_: int) -> None:
        found = torch.load(folder / "torch.pt", weights_only=True)
        live.load_state_dict(found["model"])
        live_optimizer.load_state_dict(found["optimizer"])

    def by_safetensors(_: int) -> None:
        found = load_file(folder / "all.safetensors")
        live.load_state_dict({k[6:]: v for k, v in found.items() if k.startswith("model.")})
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in found.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                states.setdefault(int(index), {})[name] = tensor
        live_optimizer.load_state_dict({"state": states, "param_groups": groups})

    def by_us(_: int) -> None:
        manager.load_checkpoint(999, model=live, optimizer=live_optimizer)

    return [
        Candidate("torch.load + load_state_dict", by_torch),
        Candidate("safetensors + load_state_dict", by_safetensors),
        Candidate("weightslab (every byte verified)", by_us),
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
        rows = interleave(loaders(place, size, model, optimizer), rounds=rounds)
        tables.append(
            table(
                f"Load, {size} parameters with AdamW",
                rows,
                relative_to="torch.load + load_state_dict",
            )
        )
        shutil.rmtree(place)
    return tables
