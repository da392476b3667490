"""What comparisons cost: weights of 1.5 GB, configs of 1,000 keys, samples of ten million."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.large_state import build
from benchmarks.timing import Candidate, interleave, table
from weightslab.components import CheckpointManagerV2
from weightslab.engine.comparing.samples import diff_data
from weightslab.engine.comparing.tables import config_table
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.root import CheckpointRoot

if TYPE_CHECKING:
    from pathlib import Path

NUM_SAMPLES = 10_000_000
READ = "read both into a buffer of 8 MiB"
_IN_A_CHILD = """
import sys
from weightslab.engine.root import CheckpointRoot
def peak(): return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
root = CheckpointRoot(sys.argv[1], read_only=True)
root.compare("latest", "latest")
import weightslab.engine.comparing.weights
before = peak()
found = root.compare(*sys.argv[2:], weights=True)
assert not found.problems and found.weights[0].read_bytes, found
print(peak() - before, "torch" in sys.modules)
"""
_FROM_DISK = """
import sys, time
from weightslab.engine.root import CheckpointRoot
root = CheckpointRoot(sys.argv[1], read_only=True)
start = time.perf_counter()
assert root.compare(*sys.argv[2:]).data
print(time.perf_counter() - start)
"""


def main(folder: Path, *, rounds: int = 5) -> list[str]:
    """Measure and return the tables."""
    weights = _weights(folder / "weights", rounds)
    gc.collect()
    return [*weights, _configs(rounds * 5), *_samples(folder / "samples", rounds)]


def _weights(folder: Path, rounds: int) -> list[str]:
    torch.manual_seed(0)
    model, optimizer = build()
    with CheckpointManagerV2(folder) as manager:
        manager.update_experiment_hash(model=model, config={"lr": 0.1})
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
                for key in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[parameter][key].mul_(0.9)
        manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
        name = manager.current_hash or ""
    del model, optimizer
    gc.collect()
    root = CheckpointRoot(folder, read_only=True)
    files = sorted((folder / "checkpoints" / name / "model").glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    sides = f"{name}@1", f"{name}@2"
    rows = interleave(
        [
            Candidate(READ, lambda _: _read(files)),
            Candidate("compare, weights and moments", lambda _: root.compare(*sides, weights=True)),
            Candidate("verify both", lambda _: root.verify(name)),
        ],
        rounds=rounds,
    )
    code = [sys.executable, "-c", _IN_A_CHILD, str(folder), *sides]
    found = subprocess.run(code, check=True, capture_output=True, text=True).stdout.split()
    line = (
        f"Both have {size / 1e9:.2f} GB, which lie in the page cache. In a new process the comparison "
        f"takes {int(found[0]) / 1e6:.0f} MB more at its peak, mapped pages included; torch imported: "
        f"{found[1]}."
    )
    return [table("Two checkpoints of 1.5 GB that differ everywhere", rows, relative_to=READ), line]


def _read(files: list[Path]) -> None:
    buffer = bytearray(8 << 20)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def _config(seed: int) -> dict[str, object]:
    numbers = random.Random(seed)
    return {
        f"group{i}": {
            f"part{j}": {f"key{k}": numbers.random() if k % 2 else f"text {k}" for k in range(10)}
            for j in range(10)
        }
        for i in range(10)
    }


def _configs(rounds: int) -> str:
    old, near, far = _config(0), _config(0), _config(1)
    near["group3"]["part4"]["key5"] = 9.0  # type: ignore[index]
    rows = interleave(
        [
            Candidate("one key differs", lambda _: config_table([old, near], [(), ()])),
            Candidate("500 keys differ", lambda _: config_table([old, far], [(), ()])),
        ],
        rounds=rounds,
    )
    return table("Two configs of 1,000 keys", rows, relative_to="one key differs")


def _samples(folder: Path, rounds: int) -> list[str]:
    uids = [f"img_{i:08d}.png" for i in range(NUM_SAMPLES)]
    samples = SampleSet.from_uids(np.array(uids))
    with CheckpointManagerV2(folder) as manager:
        first = manager.update_experiment_hash(active_data_uids=samples).exp_hash
        samples.discard(uids[5_000_000:5_000_100])
        second = manager.update_experiment_hash(active_data_uids=samples).exp_hash
        root = manager.root
        sets = [root.samples(h) for h in (first, second)]
        strangers = sets[0], SampleSet.from_uids(np.array(uids[100:]))
        rows = interleave(
            [
                Candidate("difference, linked", lambda _: diff_data(*sets, places=(0, 1))),
                Candidate("difference, not linked", lambda _: diff_data(*strangers, places=(0, 1))),
                Candidate("compare, base in memory", lambda _: root.compare(first, second)),
            ],
            rounds=rounds,
        )
    shown = table(
        "Two sets of 10,000,000 that differ in 100", rows, relative_to="difference, linked"
    )
    code = [sys.executable, "-c", _FROM_DISK, str(folder), first, second]
    found = subprocess.run(code, check=True, capture_output=True, text=True)
    line = f"In a new process, reading both sets from disk included: {float(found.stdout):.2f} s."
    return [shown, line]
