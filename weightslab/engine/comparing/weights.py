"""Weights compared: tensors paired by name, streamed from mapped files, verified while they are read.

A tensor whose recorded digest, dtype and shape are those of the other side is the same by its record
and is not read; `verify` reads those. Every other tensor is read once, in blocks, and what was read has
to have its digest, or the tensor is told as damaged and nothing is said of its numbers.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from weightslab.engine.comparing.numbers import (
    Sums,
    Worker,
    block_bytes,
    decoded,
    has_numbers,
)
from weightslab.engine.comparing.results import (
    ModuleDiff,
    MomentDiff,
    TensorDiff,
    TensorNumbers,
    WeightsDiff,
)
from weightslab.engine.digests import XXH3_128, ByteHasher
from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    TruncatedError,
)
from weightslab.engine.repository.catalog import map_file
from weightslab.engine.tensors.header import num_bytes
from weightslab.engine.tensors.matching import Spec, same_bytes
from weightslab.engine.tensors.workers import for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import TensorRecord

__all__ = ["TensorSource", "compare_weights"]

_FORGET_BYTES: Final = 8 << 20  # pages are given back in such pieces: 2 x 16 MiB stay in memory
_MAX_PROBLEMS: Final = 20  # damaged tensors that are named; the rest is counted
_STATE: Final = "/state/state/"  # in the name of a tensor of an optimizer


class TensorSource:
    """The tensors of one checkpoint, by the names that people use.

    Args:
        store: where the root lives.
        manifest: the checkpoint, which a lock keeps in place.
        wants: tells which names take part.
    Attributes:
        label: in messages.
        records: name -> record. A tied tensor stands under each of its names.
        tied: names whose bytes are those of another name.
    """

    def __init__(
        self, store: Store, manifest: Manifest, wants: Callable[[str], bool], *, label: str
    ) -> None:
        self.label = label
        self._store, self._manifest = store, manifest
        self._files: dict[str, memoryview | CheckpointError] = {}
        self._sizes = {file.name: file for file in manifest.files}
        everything = {key: manifest.tensors[key] for key in manifest.tensors}
        everything |= {key: manifest.tensors[kept] for key, kept in manifest.aliases.items()}
        named = {name_of(key): record for key, record in everything.items()}
        self.records: dict[str, TensorRecord] = {n: r for n, r in named.items() if wants(n)}
        self.tied = {name_of(key): name_of(kept) for key, kept in manifest.aliases.items()}

    def bytes_of(self, name: str) -> memoryview:
        """Return the bytes of a tensor, mapped and not yet read.

        Raises: MissingObjectError, TruncatedError, InvalidManifestError, StorageError, FormatError.
        """
        record = self.records[name]
        view = self._file(record.file)
        if record.offset + record.size_bytes > len(view):
            raise InvalidManifestError(f"{name} is said to end behind {record.file}")
        if num_bytes(record.dtype, record.shape) != record.size_bytes:
            raise InvalidManifestError(f"the size of {name} does not fit its shape")
        return view[record.offset : record.offset + record.size_bytes]

    def open_files(self) -> None:
        """Map every file that holds a tensor which takes part; errors are raised by `bytes_of`."""
        for name in {record.file for record in self.records.values()}:
            file = self._sizes[name]
            try:
                view = map_file(self._store, self._manifest.name, name)
                if file.codec != "safetensors":
                    raise FormatError(f"{name} has the codec {file.codec!r:.40}")
                if len(view) != file.size_bytes:
                    raise TruncatedError(
                        f"{name} has {len(view)} bytes instead of {file.size_bytes}"
                    )
                self._files[name] = view
            except CheckpointError as error:
                self._files[name] = error

    def _file(self, name: str) -> memoryview:
        found = self._files[name]
        if isinstance(found, CheckpointError):
            raise found
        return found

    def forget(self, name: str, start: int, stop: int) -> None:
        """Give the pages of some bytes of a tensor back; they stay in the page cache."""
        record = self.records[name]
        mapped = self._file(record.file).obj
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            page = mmap.PAGESIZE
            first = -(-(record.offset + start) // page) * page
            length = (record.offset + stop) // page * page - first
            if length > 0:
                mapped.madvise(mmap.MADV_DONTNEED, first, length)


def name_of(key: str) -> str:
    """Return the name that people use for `{part}/{key}` of a manifest."""
    part, _, name = key.partition("/")
    return name if part == "model" else f"{part.removeprefix('model.')}/{name}"


@dataclass(slots=True)
class _Task:
    """One tensor to be read: of both sides, or of one."""

    name: str
    old: str | None
    new: str | None
    size_bytes: int
    sums: Sums = field(default_factory=Sums)
    problem: str | None = None


def compare_weights(
    sides: tuple[TensorSource, TensorSource],
    places: tuple[int, int],
    moved: dict[str, str],
) -> tuple[WeightsDiff, list[str]]:
    """Compare the tensors of two checkpoints.

    Args:
        sides: both.
        places: their positions in the comparison.
        moved: new name -> old name of tensors that are the same ones under other names.
    Returns: the difference, and what could not be read.
    """
    old, new = sides
    pairs = list(_pairs(old, new, moved))
    same = [pair for pair in pairs if pair.is_same(old, new)]
    num_same = sum(pair.old == pair.new and not _is_training(pair.name) for pair in same)
    tasks = [_task(pair, old, new) for pair in pairs if not pair.is_same(old, new)]
    for side in sides:
        side.open_files()
    for_each(lambda task: _read(task, old, new), sorted(tasks, key=lambda t: -t.size_bytes))
    problems = [task.problem for task in tasks if task.problem is not None]
    shown = problems[:_MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown):,} tensors more that cannot be compared")
    by_pair = {(task.old, task.new): task for task in tasks}
    told = [pair for pair in pairs if pair.old != pair.new or not pair.is_same(old, new)]
    weights = [pair for pair in told if _STATE not in pair.name]
    moments = [task for task in tasks if _is_training(task.name)]
    return (
        WeightsDiff(
            old=places[0],
            new=places[1],
            num_same=num_same,
            tensors=tuple(
                _tensor(pair, by_pair.get((pair.old, pair.new)), old, new) for pair in weights
            ),
            modules=_modules(pairs, by_pair, old, new),
            moments=_moments(moments),
            read_bytes=sum(task.size_bytes for task in tasks),
        ),
        shown,
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    old: str | None
    new: str | None

    @property
    def name(self) -> str:
        found = self.old if self.new is None else self.new
        assert found is not None, "a pair has a side"
        return found

    def is_same(self, old: TensorSource, new: TensorSource) -> bool:
        if self.old is None or self.new is None:
            return False
        return same_bytes(old.records[self.old], new.records[self.new])


def _pairs(old: TensorSource, new: TensorSource, moved: dict[str, str]) -> Iterator[_Pair]:
    """Pair names in the order of the new side, what is gone last; a tie of both sides is told once."""
    taken = set(moved.values())
    for name in new.records:
        if name in new.tied and new.tied[name] == old.tied.get(name):
            continue
        before = moved.get(name, name if name in old.records and name not in taken else None)
        yield _Pair(before, name)
    for name in old.records:
        if name not in taken and name not in new.records:
            yield _Pair(name, None)


def _task(pair: _Pair, old: TensorSource, new: TensorSource) -> _Task:
    sides = ((old, pair.old), (new, pair.new))
    size_bytes = sum(side.records[name].size_bytes for side, name in sides if name is not None)
    return _Task(pair.name, pair.old, pair.new, size_bytes)


# ---------------------------------------------------------------- reading
def _read(task: _Task, old: TensorSource, new: TensorSource) -> None:
    """Fill the sums of a task, or say what is wrong with it."""
    sides = [(side, name) for side, name in ((old, task.old), (new, task.new)) if name is not None]
    try:
        streams = [_Stream(side, name) for side, name in sides]
        worker = Worker()
        specs = [_spec(*side) for side in sides]
        kinds = {spec.dtype == "C64" for spec in specs}
        if len(specs) == 2 and specs[0].shape == specs[1].shape and len(kinds) == 1:  # noqa: PLR2004
            with np.errstate(all="ignore"):
                for one, other in zip(streams[0].blocks(), streams[1].blocks(), strict=True):
                    worker.compare(task.sums, one, other, is_complex=kinds == {True})
        else:
            for stream, (side, _) in zip(streams, sides, strict=True):
                for block in stream.blocks():
                    worker.alone(task.sums, block, is_new=side is new)
        for stream in streams:
            stream.check()
    except CheckpointError as error:
        task.problem = f"{task.name} cannot be compared: {error.message}"
        task.sums = Sums()


def _spec(side: TensorSource, name: str) -> Spec:
    record = side.records[name]
    return Spec(record.dtype, record.shape)


class _Stream:
    """Reads a tensor block by block, hashes it, and gives the pages back."""

    def __init__(self, side: TensorSource, name: str) -> None:
        self._side, self._name = side, name
        self._record = side.records[name]
        if not has_numbers(self._record.dtype):
            raise FormatError(f"its dtype {self._record.dtype} has no numbers here")
        if not self._record.digest.startswith(f"{XXH3_128}:"):
            raise FormatError(f"unknown digest {self._record.digest:.40}")
        self._view = side.bytes_of(name)
        self._hasher = ByteHasher()

    def blocks(self) -> Iterator[Any]:
        size_bytes, dtype = len(self._view), self._record.dtype
        step, kept = block_bytes(dtype), 0
        for start in range(0, size_bytes, step):
            block = self._view[start : start + step]
            self._hasher.update(block)
            yield decoded(block, dtype)
            if start + step - kept >= _FORGET_BYTES:
                self._side.forget(self._name, kept, start + step)
                kept = start + step
        self._side.forget(self._name, kept, size_bytes)

    def check(self) -> None:
        """Raise DigestMismatchError if what was read is not what was recorded."""
        if self._hasher.text() != self._record.digest:
            raise DigestMismatchError(
                f"its bytes in {self._record.file} do not have the digest that was recorded"
            )


# ---------------------------------------------------------------- telling
def _tensor(pair: _Pair, task: _Task | None, old: TensorSource, new: TensorSource) -> TensorDiff:
    before = None if pair.old is None else _spec(old, pair.old)
    after = None if pair.new is None else _spec(new, pair.new)
    if task is not None and task.problem is not None:
        kind = "unreadable"
    elif before is None or after is None:
        kind = "removed" if after is None else "added"
    elif task is None:
        kind = "moved"
    else:
        kind = "changed" if before.shape == after.shape else "reshaped"
    numbers = None
    if task is not None and task.problem is None:
        numbers = TensorNumbers.of(task.sums, old=before is not None, new=after is not None)
    return TensorDiff(
        name=pair.name,
        kind=kind,
        old_name=pair.old if pair.old != pair.name else None,
        dtype_old=None if before is None else before.dtype,
        dtype_new=None if after is None else after.dtype,
        shape_old=None if before is None else before.shape,
        shape_new=None if after is None else after.shape,
        numbers=numbers,
    )


def _modules(
    pairs: list[_Pair],
    by_pair: dict[tuple[str | None, str | None], _Task],
    old: TensorSource,
    new: TensorSource,
) -> tuple[ModuleDiff, ...]:
    """Add the tensors up by module, each to every module around it."""
    counts: dict[str, int] = {}
    changed: dict[str, tuple[int, Sums]] = {}
    for pair in pairs:
        if _is_training(pair.name) or pair.old is None or pair.new is None:
            continue
        if _spec(old, pair.old).shape != _spec(new, pair.new).shape:
            continue
        task = by_pair.get((pair.old, pair.new))
        if task is not None and task.problem is not None:
            continue
        for path in _around(pair.name):
            counts[path] = counts.get(path, 0) + 1
            if task is not None:
                number, sums = changed.get(path, (0, Sums()))
                sums.add(task.sums)
                changed[path] = number + 1, sums
    return tuple(
        ModuleDiff(
            path=path,
            num_tensors=counts[path],
            num_changed=number,
            numbers=TensorNumbers.of(sums),
        )
        for path, (number, sums) in changed.items()
    )


def _around(name: str) -> Iterator[str]:
    """Yield the path of the model, then of each module around a tensor, outermost first."""
    model, slash, rest = name.rpartition("/")
    steps = rest.split(".")[:-1]
    for length in range(len(steps) + 1):
        yield f"{model}{slash}{'.'.join(steps[:length])}"


def _is_training(name: str) -> bool:
    return name.startswith("training/")


def _moments(tasks: list[_Task]) -> tuple[MomentDiff, ...]:
    groups: dict[tuple[str, str], list[_Task]] = {}
    for task in tasks:
        head, found, tail = task.name.partition(_STATE)
        if found and task.problem is None:
            optimizer, key = head.removeprefix("training/optimizer/"), tail.partition("/")[2]
            groups.setdefault((optimizer, key), []).append(task)
    diffs = []
    for (optimizer, key), members in sorted(groups.items()):
        sums = Sums()
        for task in members:
            sums.add(task.sums)
        old, new = (
            any(getattr(task, side) is not None for task in members) for side in ("old", "new")
        )
        numbers = TensorNumbers.of(sums, old=old, new=new)
        diffs.append(
            MomentDiff(optimizer=optimizer, key=key, num_tensors=len(members), numbers=numbers)
        )
    return tuple(diffs)
