"""Told to end in the middle of a step, with a state of 1.5 GB: how long until the process is gone.

Each program trains in a process of its own and is sent SIGTERM at the end of a step, with and without
a save under way. It reports what its own durable save takes, so that the two can be compared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

INTRO = (
    "From SIGTERM until the process is gone, its step committed. The limit is what the save under way "
    "still needs (all of it here) + 1.3 x a durable save of the same process."
)


def program(root: str, kind: str) -> None:
    """Measure a durable save, then wait for the signal in the middle of a step."""
    from benchmarks.large_state import build
    from benchmarks.save_load import change
    from weightslab.components import CheckpointManagerV2, FixedInterval, OnPreemption

    model, optimizer = build()
    policy = FixedInterval(10) | OnPreemption()
    with CheckpointManagerV2(root, save_policy=policy, async_save=kind != "sync") as manager:
        manager.update_experiment_hash(model=model, config={"lr": 1e-3})
        durable = []
        for step in (1, 2, 3):  # the first touches its buffers for the first time
            change(model, optimizer)
            os.sync()
            start = time.perf_counter()
            manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
            manager.wait()
            durable.append(time.perf_counter() - start)
            manager.root.delete(manager.current_hash, step=step)
        manager.step(9, model=model, optimizer=optimizer)
        change(model, optimizer)
        os.sync()
        under_way = 0.0
        if kind == "under way":
            manager.step(10, model=model, optimizer=optimizer)
            change(model, optimizer)
            under_way = min(durable[1:])  # all of it still has to be done
        print(json.dumps({"durable": min(durable[1:]), "under_way": under_way}), flush=True)
        sys.stdin.readline()  # the signal has been sent
        manager.step(11, model=model, optimizer=optimizer)
    raise AssertionError("the signal did not end the loop")


def ended(folder: Path, kind: str) -> tuple[float, dict[str, float]]:
    """Return the seconds from the signal to the end of a program, and what it reported."""
    root = folder / "root"
    command = [sys.executable, "-m", "benchmarks.preempt_cost", str(root), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        told = json.loads(process.stdout.readline())
        start = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.stdin.write("go\n")
        process.stdin.flush()
        status = process.wait()
        seconds = time.perf_counter() - start
        said = re.search(r"is on disk, ([\d.]+) s after", process.stderr.read())
    assert status == 143, status
    from weightslab.engine.root import CheckpointRoot

    latest = CheckpointRoot(root, read_only=True).latest()
    assert latest is not None
    assert latest.name.step == 11
    shutil.rmtree(root)
    assert said is not None
    return seconds, told | {"committed": float(said.group(1))}


def main(folder: Path, *, rounds: int = 5) -> list[str]:
    """Measure, and return the table."""
    lines = [
        INTRO,
        "",
        "| loop | on disk after | gone after | min to max | a durable save | limit |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, kind in (
        ("saves at once", "sync"),
        ("`async_save=True`, nothing under way", "async"),
        ("`async_save=True`, a save just begun", "under way"),
    ):
        found = [ended(folder, kind) for _ in range(rounds)]
        seconds = [s for s, _ in found]
        durable = statistics.median(told["durable"] for _, told in found)
        under_way = statistics.median(told["under_way"] for _, told in found)
        lines.append(
            f"| {name} | {statistics.median(told['committed'] for _, told in found):.1f} s "
            f"| {statistics.median(seconds):.2f} s | {min(seconds):.2f} to "
            f"{max(seconds):.2f} s | {durable:.2f} s | {under_way + 1.3 * durable:.2f} s |"
        )
    return ["\n".join(lines)]


if __name__ == "__main__":
    program(*sys.argv[1:])
