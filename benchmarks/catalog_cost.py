"""The catalog: what it costs a save, how fast it finds, what it costs to build it again.

Roots of generated manifests (12 tensors each) in memory where the system has `/dev/shm`, so that it is
the catalog that is measured and not the disk.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from weightslab.engine.digests import seal_digest
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.commit import Draft
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.index_file import INDEX_VARIABLE, find_index_path
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.tensors.header import HeaderEntry
from weightslab.engine.tensors.packing import FileImage
from weightslab.engine.values import FileRecord, ParentLink, TensorRecord

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NUM_STEPS = 20
NUM_TENSORS = 12
TENSOR_BYTES = 100_000


def main(*, num_experiments: int = 10_000, rounds: int = 9) -> list[str]:
    """Measure, and return the table."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="weightslab-bench-", dir=in_memory))
    before = os.environ.get(INDEX_VARIABLE)
    os.environ[INDEX_VARIABLE] = str(folder / "catalogs")
    try:
        small, large = folder / "small", folder / "large"
        for path, number in ((small, 10), (large, num_experiments)):
            make_root(path, number)
        rows = [*build_rows(large), *find_rows(large, rounds), *save_rows(small, large, rounds)]
    finally:
        os.environ.pop(INDEX_VARIABLE)
        if before is not None:
            os.environ[INDEX_VARIABLE] = before
        shutil.rmtree(folder)
    title = f"### Catalog, {num_experiments:,} experiments x {NUM_STEPS} checkpoints"
    head = [title, "", "| what | figure | goal |", "|---|---:|---:|"]
    return ["\n".join([*head, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])]


# ---------------------------------------------------------------- roots
def make_root(path: Path, num_experiments: int) -> None:
    """Write experiments with manifests only; no question of these figures reads a tensor."""
    CheckpointRoot(path)
    for number in range(num_experiments):
        digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
        record = ExperimentRecord(components=Components(config=digest), created_at=ORIGIN)
        folder = path / "checkpoints" / record.exp_hash
        (folder / "model").mkdir(parents=True)
        (folder / "experiment.json").write_bytes(record.to_bytes())
        template = template_of(record.exp_hash)
        for step in range(1, NUM_STEPS + 1):
            name = CheckpointName(exp_hash=record.exp_hash, step=step)
            (folder / "model" / f"{name.stem}.json").write_bytes(
                fill(template, name, ORIGIN + timedelta(seconds=number * NUM_STEPS + step))
            )
        os.utime(folder / "model", (0, 0))  # a folder counts as settled after a minute


def manifest_of(exp_hash: str) -> Manifest:
    """Return the manifest that the others are made from."""
    name = CheckpointName(exp_hash=exp_hash, step=0)
    file = FileRecord(
        name=name.file_name("model"),
        part="model",
        size_bytes=NUM_TENSORS * TENSOR_BYTES,
        digest="xxh3-128:" + "0" * 32,
        header_size_bytes=4,
        header_digest="xxh3-128:" + "1" * 32,
    )
    tensors = {
        f"model/layers.{n}.weight": TensorRecord(
            file=file.name,
            dtype="F32",
            shape=(TENSOR_BYTES // 4,),
            offset=n * TENSOR_BYTES,
            size_bytes=TENSOR_BYTES,
            digest=f"xxh3-128:{n:032x}",
        )
        for n in range(NUM_TENSORS)
    }
    return Manifest(
        name=name,
        experiment_digest="wl1:sha256:" + exp_hash * 4,
        sequence=1,
        created_at=ORIGIN,
        parent=ParentLink(kind="fresh", exact=True),
        files=(file,),
        tensors=tensors,
        state={"model": {}},
        versions={"python": "3"},
    )


def template_of(exp_hash: str) -> str:
    """Return the manifest of step 0 without its seal."""
    found = json.loads(manifest_of(exp_hash).to_bytes())
    del found["digest"]
    return json.dumps(found, sort_keys=True, separators=(",", ":"))[:-1]


def fill(template: str, name: CheckpointName, created_at: datetime) -> bytes:
    """Return the sealed manifest of one checkpoint; every one has digests of its own."""
    own = hashlib.md5(name.stem.encode()).hexdigest()[:28]
    old = CheckpointName(exp_hash=name.exp_hash, step=0).stem
    for before, after in (
        (old, name.stem),
        ("xxh3-128:" + "0" * 28, f"xxh3-128:{own}"),
        ('"step":0', f'"step":{name.step}'),
        ('"sequence":1', f'"sequence":{name.step}'),
        (ORIGIN.isoformat(), created_at.isoformat()),
    ):
        template = template.replace(before, after)
    body = template.encode()
    return body + b',\n"digest":"' + seal_digest(body).encode() + b'"\n}\n'


# ---------------------------------------------------------------- figures
def build_rows(path: Path) -> list[tuple[str, str, str]]:
    """Building the index anew, against reading the same files without it."""
    bare = seconds(lambda: read_all(path, check=False))
    checked = 10 * seconds(lambda: read_all(path, check=True, share=10))
    built = seconds(lambda: CheckpointRoot(path).latest())
    size = find_index_path(path).stat().st_size
    return [
        ("scan the folders and read every manifest", f"{bare:.1f} s", ""),
        ("the same, parsed and checked (from 10 % of it)", f"{checked:.1f} s", ""),
        (
            f"build the catalog ({size / 1e6:.0f} MB)",
            f"{built:.1f} s = {built / bare:.1f} x reading, {built / checked:.1f} x checked",
            "<= 3 x",
        ),
    ]


def read_all(path: Path, *, check: bool, share: int = 1) -> None:
    """List every model folder and read its manifests; check each as a load does."""
    with os.scandir(path / "checkpoints") as folders:
        for folder in itertools.islice(folders, 0, None, share):
            with os.scandir(f"{folder.path}/model") as files:
                for file in files:
                    data = Path(file.path).read_bytes()
                    if check:
                        stem, _, step = file.name[:-5].rpartition("_step_")
                        name = CheckpointName(exp_hash=stem, step=int(step))
                        Manifest.from_bytes(data, name=name)


def find_rows(path: Path, rounds: int) -> list[tuple[str, str, str]]:
    """Finding the newest checkpoint of the root, in a process that has it open and in a new one."""
    opened = [seconds(lambda: CheckpointRoot(path).latest()) for _ in range(3)]
    root = CheckpointRoot(path)
    root.latest()
    found = [seconds(root.latest) for _ in range(10 * rounds)]
    exp_hash = root.catalog.exp_hashes()[0]
    one = [seconds(lambda: root.latest(exp_hash)) for _ in range(10 * rounds)]
    scan = ScanCatalog(root.store)
    scanned = seconds(lambda: [scan.latest(h) for h in scan.exp_hashes()[:100]])
    total = scanned / 100 * len(scan.exp_hashes())
    return [
        ("newest of the root, root open", milliseconds(found), "<= 5 ms"),
        ("newest of one experiment, root open", milliseconds(one), ""),
        ("newest of the root, first question of a process", milliseconds(opened), ""),
        ("the same without a catalog (from 1 % of it)", f"{total:.0f} s", ""),
    ]


class TimedCatalog:
    """Counts the time that a save spends in its catalog."""

    def __init__(self, catalog) -> None:
        self.catalog = catalog
        self.spent = 0.0

    def __getattr__(self, name: str):
        def timed(*values):
            start = time.perf_counter()
            found = getattr(self.catalog, name)(*values)
            self.spent += time.perf_counter() - start
            return found

        return timed


def save_rows(small: Path, large: Path, rounds: int) -> list[tuple[str, str, str]]:
    """What a save of 1.2 MB spends in the catalog, in a small and in a large root."""
    figures: dict[Path, list[float]] = {small: [], large: []}
    roots = {path: CheckpointRoot(path) for path in figures}
    timed = {path: TimedCatalog(root.catalog) for path, root in roots.items()}
    for number in range(10 * rounds):
        for path, root in roots.items():
            root.catalog = timed[path]
            timed[path].spent = 0.0
            save(root, number)
            if number >= rounds:
                figures[path].append(timed[path].spent)
    few, many = (statistics.median(figures[path]) for path in (small, large))
    return [
        ("catalog's share of a save, 10 experiments", milliseconds(figures[small]), "<= 2 ms"),
        (
            "catalog's share of a save, in the large root",
            f"{milliseconds(figures[large])} = {many / few:.2f} x",
            "<= 2 ms, <= 1.5 x",
        ),
    ]


def save(root: CheckpointRoot, number: int) -> None:
    """Commit 1.2 MB that no save before had."""
    exp_hash = "0" * 16
    data = os.urandom(TENSOR_BYTES)
    entries = {
        f"layers.{n}.weight": HeaderEntry(
            dtype="U8",
            shape=(TENSOR_BYTES - n,),
            offset=4 + sum(TENSOR_BYTES - k for k in range(n)),
            size_bytes=TENSOR_BYTES - n,
        )
        for n in range(NUM_TENSORS)
    }
    parts = [b"head", *(memoryview(data)[n:] for n in range(NUM_TENSORS))]
    draft = Draft(
        exp_hash=exp_hash,
        experiment_digest="wl1:sha256:" + exp_hash * 4,
        step=number,
        images={"model": FileImage(parts=parts, entries=entries)},
        aliases={},
        state={"model": {}},
        metadata=None,
        metrics={},
        parent=ParentLink(kind="fresh", exact=True),
        config_file=None,
        versions={"python": "3"},
    )
    write_checkpoint(root, draft)


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def milliseconds(figures: list[float]) -> str:
    """Render the median."""
    return f"{statistics.median(figures) * 1e3:.2f} ms"


if __name__ == "__main__":
    print("\n".join(main()))
