"""What `manager.step` costs where nothing is saved, and what a logged metric costs."""

from __future__ import annotations

import gc
import signal
import statistics
import time
from typing import TYPE_CHECKING

import torch

from weightslab.components import (
    AtExit,
    CheckpointManagerV2,
    FixedInterval,
    InitialSave,
    OnException,
    OnPreemption,
    SpecificSteps,
    TimeInterval,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLS = 20_000  # per round: some 0.1 s
NEVER = 10**9
EVERY_KIND = (
    FixedInterval(NEVER)
    | TimeInterval(NEVER)
    | SpecificSteps(range(NEVER, NEVER + 1000))
    | InitialSave()
    | OnPreemption((signal.SIGTERM, signal.SIGINT))
    | OnException()
    | AtExit()
)


def main(folder: Path, *, rounds: int = 15) -> list[str]:
    """Measure, and return the table."""
    rows = []
    loops = {
        "step(n), one policy": (FixedInterval(NEVER), "plain"),
        "step(n, metrics, model=..., optimizer=...), one policy": (FixedInterval(NEVER), "full"),
        "step(n), every policy": (EVERY_KIND, "plain"),
        "step(n, metrics, model=..., optimizer=...), every policy": (EVERY_KIND, "full"),
        "log_metrics(n, loss=...), with its syncs": (None, "log"),
        "log_metrics(n, {10 metrics}), with its syncs": (None, "log ten"),
    }
    for number, (name, (policy, kind)) in enumerate(loops.items()):
        rows.append((name, *measure(folder / str(number), policy, kind, rounds)))
    lines = [
        f"One call, of {CALLS:,} in a row; nothing is saved.",
        "",
        "| call | median of rounds | min to max |",
        "|---|---:|---:|",
    ]
    lines += [f"| `{n}` | {m:.2f} us | {a:.2f} to {b:.2f} us |" for n, m, a, b in rows]
    return ["\n".join(lines)]


def measure(folder: Path, policy, kind: str, rounds: int) -> tuple[float, float, float]:
    """Return the microseconds per call: median, least and most of the rounds."""
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with CheckpointManagerV2(folder, save_policy=policy) as manager:
        manager.update_experiment_hash(model=model)
        # a run that has saved before: `InitialSave` and `AtExit` have nothing left to do
        manager.save_model_checkpoint(model, step=0, optimizer=optimizer)
        call = caller(manager, kind, model, optimizer)
        found = []
        start_step = 1
        for _ in range(rounds + 1):
            gc.collect()
            start = time.perf_counter()
            for step in range(start_step, start_step + CALLS):
                call(step)
            found.append((time.perf_counter() - start) / CALLS * 1e6)
            start_step += CALLS
        manager.load_checkpoint(0, model=model, optimizer=optimizer)
    return statistics.median(found[1:]), min(found[1:]), max(found[1:])


def caller(manager, kind: str, model, optimizer) -> Callable[[int], object]:
    """Return the call to measure."""
    if kind == "plain":
        return manager.step
    if kind == "full":
        metrics = {"loss": 0.5}
        return lambda step: manager.step(step, metrics, model=model, optimizer=optimizer)
    if kind == "log":
        return lambda step: manager.log_metrics(step, loss=0.5)
    ten = {f"metric_{number}": number / 7 for number in range(10)}
    return lambda step: manager.log_metrics(step, ten)
