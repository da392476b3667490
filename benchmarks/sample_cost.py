"""What ten million samples cost: reading them, changing them, storing and reading back."""

from __future__ import annotations

import gc
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.timing import Candidate, interleave, table
from weightslab.components import CheckpointManagerV2
from weightslab.engine.identity.samples import SampleSet

NUM_SAMPLES = 10_000_000
BASE = "sort + join + sha256 of the list"
_READ = """
import sys
from weightslab.engine.root import CheckpointRoot
import h5py, numpy
def peak(): return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
root = CheckpointRoot(sys.argv[1], read_only=True)
record, before = root._record(sys.argv[2]), peak()
samples = root.samples(sys.argv[2])
assert len(samples) == int(sys.argv[3])
print(peak() - before)
"""


def main(folder: Path, *, rounds: int = 5) -> list[str]:
    """Measure and return the tables."""
    texts = [f"img_{i:08d}.png" for i in range(NUM_SAMPLES)]
    random.Random(0).shuffle(texts)
    reading = _reading(texts, rounds)
    samples = SampleSet.from_uids(texts)
    del texts
    gc.collect()
    return [reading, _changing(samples, rounds * 3), *_storing(folder, samples, rounds)]


def _sorted_digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _reading(texts: list[str], rounds: int) -> str:
    as_numpy, as_arrow = np.array(texts), pa.array(texts)
    numbers = np.arange(NUM_SAMPLES)
    shuffled = np.random.default_rng(0).permutation(numbers)

    def take(name: str, uids) -> Candidate:
        return Candidate(name, lambda _: SampleSet.from_uids(uids).digest)

    rows = interleave(
        [
            Candidate(BASE, lambda _: _sorted_digest(texts)),
            take("list of str", texts),
            take("numpy array of str (U16)", as_numpy),
            take("pyarrow array of string", as_arrow),
            take("numpy int64, ascending", numbers),
            take("numpy int64, shuffled", shuffled),
        ],
        rounds=rounds,
        warmup=1,
    )
    title = "10,000,000 sample UIDs (16 characters, shuffled) to the digest"
    return table(title, rows, relative_to=BASE)


def _changing(samples: SampleSet, rounds: int) -> str:
    chosen = random.Random(1)
    state: dict[str, object] = {}

    def prepare(_: int) -> None:
        state["uids"] = [f"img_{i:08d}.png" for i in chosen.sample(range(NUM_SAMPLES), 100)]
        state["kept"] = samples.frozen()

    def discard(_: int) -> str:
        samples.discard(state["uids"])
        return samples.digest

    def restore(_: int) -> None:
        samples.restore(state["uids"])

    def difference(_: int) -> None:
        samples.difference(state["kept"])

    def discard_first(number: int) -> None:
        prepare(number)
        discard(number)

    prepare(0)
    start = time.process_time()
    discard(0)  # makes the index
    first = time.process_time() - start
    restore(0)
    rows = interleave(
        [
            Candidate("discard 100 and take the digest", discard, prepare, restore),
            Candidate("what differs from a copy", difference, discard_first, restore),
            Candidate("frozen copy", lambda _: samples.frozen()),
        ],
        rounds=rounds,
    )
    shown = table(
        "Changing 10,000,000 samples", rows, relative_to="discard 100 and take the digest"
    )
    return f"{shown}\n\nThe first change makes the index: {first:.2f} s of CPU time."


def _storing(folder: Path, samples: SampleSet, rounds: int) -> list[str]:
    root = folder / "samples"
    with CheckpointManagerV2(root) as manager:
        manager.update_experiment_hash(config={"lr": 0.1}, active_data_uids=samples)
        sizes: list[int] = []

        def update(_: int) -> None:
            manager.update_experiment_hash(active_data_uids=samples)

        def prepare(number: int) -> None:
            first = 100 * number
            samples.discard([f"img_{i:08d}.png" for i in range(first, first + 100)])
            sizes.append(_bytes_in(root))

        def measure(_: int) -> None:
            sizes.append(_bytes_in(root))

        rows = interleave(
            [Candidate("update_experiment_hash, 100 discarded", update, prepare, measure)],
            rounds=rounds * 2,
        )
        grown = max(b - a for a, b in zip(sizes[::2], sizes[1::2], strict=True))
        name = manager.current_hash or ""
    code = [sys.executable, "-c", _READ, str(root), name, str(len(samples))]
    found = subprocess.run(code, check=True, capture_output=True, text=True)
    used = int(found.stdout) / 1e6
    held = NUM_SAMPLES * (16 + 8) / 1e6
    line = (
        f"Each such experiment takes {grown / 1e3:.0f} kB more. Reading one back in a new process takes "
        f"{used:.0f} MB at its peak; the UIDs with their lengths are {held:.0f} MB."
    )
    return [table("A new experiment of changed samples", rows, relative_to=rows[0].name), line]


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files, those with several names once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({status.st_ino: status.st_size for status in found}.values())


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        print("\n\n".join(main(Path(place), rounds=3)))
