"""A state of 1.5 GB (124M parameters with AdamW): durable, background and partial saves."""

from __future__ import annotations

import os
import shutil
import statistics
import threading
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from benchmarks.save_load import change, flat, fsync
from benchmarks.timing import Candidate, Row, interleave, table
from weightslab.components import CheckpointManagerV2

if TYPE_CHECKING:
    from pathlib import Path


class Block(torch.nn.Module):
    """The layers of a GPT-2 block, 7.1M parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attn = torch.nn.Linear(width, 3 * width)
        self.proj = torch.nn.Linear(width, width)
        self.fc, self.out = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.attn(self.ln_1(x)).chunk(3, dim=-1)
        x = x + self.proj(torch.nn.functional.scaled_dot_product_attention(query, key, value))
        return x + self.out(torch.nn.functional.gelu(self.fc(self.ln_2(x))))


class Gpt(torch.nn.Module):
    """The shapes of GPT-2 small: 124M parameters in 148 tensors."""

    def __init__(self, width: int = 768, depth: int = 12) -> None:
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(50257, width), torch.nn.Embedding(1024, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))
        self.ln_f = torch.nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return the model and an AdamW with moments (random: a step would take longer)."""
    torch.manual_seed(0)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(1.0),
            "exp_avg": torch.randn_like(parameter),
            "exp_avg_sq": torch.rand_like(parameter),
        }
    return model, optimizer


def image_of(model, optimizer) -> list[np.ndarray]:
    """Return the bytes of the state without a copy."""
    tensors = flat(model, optimizer).values()
    return [t.detach().contiguous().view(-1).numpy().view(np.uint8) for t in tensors]


def raw_write(path: Path, image: list[np.ndarray]) -> None:
    """Write buffered, then fsync: what every durable save does at least."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for part in image:
        data = memoryview(part)
        while data:
            data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
    os.close(descriptor)
    fsync(path)


def copy_with_two_threads(image: list[np.ndarray], buffer: np.ndarray) -> None:
    """Copy the state into memory that was used before."""
    places, start = [], 0
    for part in image:
        places.append(start)
        start += len(part)
    half = next(i for i, place in enumerate(places) if 2 * place >= start)

    def work(numbers: range) -> None:
        for i in numbers:
            np.copyto(buffer[places[i] : places[i] + len(image[i])], image[i])

    other = threading.Thread(target=work, args=(range(half),))
    other.start()
    work(range(half, len(image)))
    other.join()


def durable(folder: Path, model, optimizer, rounds: int) -> list[Row]:
    """Save everything, on disk on return."""
    manager = CheckpointManagerV2(folder / "root")
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    image = image_of(model, optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def by_torch(_: int) -> None:
        torch.save(state, folder / "torch.pt")
        fsync(folder / "torch.pt")

    def by_safetensors(_: int) -> None:
        save_file(flat(model, optimizer), folder / "all.safetensors")
        fsync(folder / "all.safetensors")

    def by_dcp(_: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(flat(model, optimizer), checkpoint_id=folder / "dcp")
        for path in (folder / "dcp").iterdir():
            fsync(path)

    def by_us(number: int) -> None:
        manager.save_model_checkpoint(model, step=number + 1, optimizer=optimizer)

    def settle(_: int) -> None:
        change(model, optimizer)
        os.sync()

    candidates = [
        Candidate(
            "raw buffered write + fsync",
            lambda _: raw_write(folder / "raw", image),
            settle,
            lambda _: (folder / "raw").unlink(),
        ),
        Candidate(
            "safetensors + fsync",
            by_safetensors,
            settle,
            lambda _: (folder / "all.safetensors").unlink(),
        ),
        Candidate("torch.save + fsync", by_torch, settle, lambda _: (folder / "torch.pt").unlink()),
        Candidate("dcp.save + fsync", by_dcp, settle, lambda _: shutil.rmtree(folder / "dcp")),
        Candidate(
            "weightslab (digests, manifest, durable)",
            by_us,
            settle,
            lambda n: manager.root.delete(manager.current_hash, step=n + 1),
        ),
    ]
    return interleave(candidates, rounds=rounds)


def blocking(folder: Path, model, optimizer, rounds: int) -> list[Row]:
    """How long the training loop waits for a save in the background."""
    manager = CheckpointManagerV2(folder / "root", async_save=True)
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    image = image_of(model, optimizer)
    buffer = np.zeros(sum(map(len, image)), np.uint8)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    under_way = []

    def by_dcp(_: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            under_way.append(dcp.async_save(flat(model, optimizer), checkpoint_id=folder / "dcp"))

    def finish_dcp(_: int) -> None:
        under_way.pop().result()
        shutil.rmtree(folder / "dcp")

    def finish_ours(number: int) -> None:
        manager.wait()
        manager.root.delete(manager.current_hash, step=number + 1)

    candidates = [
        Candidate("memcpy, two threads", lambda _: copy_with_two_threads(image, buffer)),
        Candidate(
            "torch.save (synchronous, no fsync)",
            lambda _: torch.save(state, folder / "torch.pt"),
            after=lambda _: (folder / "torch.pt").unlink(),
        ),
        Candidate("dcp.async_save", by_dcp, after=finish_dcp),
        Candidate(
            "weightslab, async_save=True",
            lambda n: manager.save_model_checkpoint(model, step=n + 1, optimizer=optimizer),
            lambda _: change(model, optimizer),
            finish_ours,
        ),
    ]
    rows = interleave(candidates, rounds=rounds)
    manager.close()
    return rows


def small_ops(seconds: float) -> int:
    """Run small operations for a while; return how many."""
    x, count, until = torch.randn(64, 64), 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        for _ in range(50):
            x = torch.tanh(x @ x * 0.01)
        count += 50
    return count


def matmuls(seconds: float) -> int:
    """Run matrix products that use all cores for a while; return how many."""
    x, count, until = torch.randn(1024, 1024), 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        x @ x
        count += 1
    return count


def lost(folder: Path, model, optimizer, rounds: int, *, seconds: float = 5.0) -> list[str]:
    """Return a table of the work that a loop did not do because a save ran beside it."""
    manager = CheckpointManagerV2(folder / "root", async_save=True)
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    lines = [
        "### Training time lost while 1.5 GB are saved in the background",
        "",
        f"Work done in {seconds:.0f} s beside a save, against the mean of the {seconds:.0f} s before and after.",
        "",
        "| loop | lost | min to max | save not finished in the window |",
        "|---|---:|---:|---:|",
    ]
    for name, loop in (("small operations", small_ops), ("matrix products", matmuls)):
        figures, late = [], []
        for number in range(1, rounds + 2):
            change(model, optimizer)
            before = loop(seconds)
            manager.save_model_checkpoint(model, step=number, optimizer=optimizer)
            beside = loop(seconds)
            start = time.perf_counter()
            manager.wait()
            late.append(time.perf_counter() - start)
            after = loop(seconds)
            manager.root.delete(manager.current_hash, step=number)
            if number > 1:  # the first save touches its buffers for the first time
                figures.append(seconds * (1 - beside / ((before + after) / 2)))
        lines.append(
            f"| {name} | {statistics.median(figures):.2f} s | {min(figures):.2f} to "
            f"{max(figures):.2f} s | {sum(t > 0.05 for t in late[1:])} of {rounds} |"
        )
    manager.close()
    return lines


def partial(folder: Path, model, optimizer, rounds: int) -> tuple[list[Row], str]:
    """Change 1.4 % of the tensors and save; compare with writing everything."""
    manager = CheckpointManagerV2(folder / "root")
    manager.update_experiment_hash(model=model, config={"lr": 1e-3})
    image = image_of(model, optimizer)
    chosen = [model.blocks[3].attn.weight]  # 1.4 % of the parameters
    changed = sum(3 * p.numel() * p.element_size() + 4 for p in chosen)
    manager.save_model_checkpoint(model, step=0, optimizer=optimizer)
    written = []

    def touch(_: int) -> None:
        with torch.no_grad():
            for parameter in chosen:
                state = optimizer.state[parameter]
                for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"], state["step"]):
                    tensor.add_(1e-3)
        os.sync()

    def save(number: int) -> None:
        path = manager.save_model_checkpoint(model, step=number + 1, optimizer=optimizer)
        files = path.parent.glob(f"*step_{number + 1:06d}*")
        written.append(sum(f.stat().st_size for f in files if f.stat().st_nlink == 1))

    rows = interleave(
        [
            Candidate(
                "raw buffered write + fsync of everything",
                lambda _: raw_write(folder / "raw", image),
                touch,
                lambda _: (folder / "raw").unlink(),
            ),
            Candidate("weightslab, 1.4 % changed", save, touch),
        ],
        rounds=rounds,
    )
    manager.root.delete(manager.current_hash)
    total = sum(map(len, image))
    note = (
        f"{changed / total:.1%} of the bytes changed; written were {statistics.median(written) / changed:.3f} x "
        "these, manifest included."
    )
    return rows, note


def main(folder: Path, *, rounds: int = 5) -> list[str]:
    """Measure and return the tables."""
    model, optimizer = build()
    tables = [
        table(
            "Durable save, 124M parameters with AdamW (1.5 GB)",
            durable(folder, model, optimizer, rounds),
            relative_to="raw buffered write + fsync",
        ),
        table(
            "How long the loop waits for a background save of 1.5 GB",
            blocking(folder, model, optimizer, rounds),
            relative_to="memcpy, two threads",
        ),
        "\n".join(lost(folder, model, optimizer, max(3, rounds // 2))),
    ]
    rows, note = partial(folder, model, optimizer, rounds)
    title = "Durable save of 1.5 GB of which little changed"
    tables.append(
        table(title, rows, relative_to="raw buffered write + fsync of everything") + "\n\n" + note
    )
    return tables
