"""The catalog: what a root has, and how it is read from the manifests by scanning.

Truth is in the files alone. A manifest is parsed once per process and remembered under its inode,
size and times; a file that changed is read again. Order never comes from file times: the latest
checkpoint of an experiment is the one with the highest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    FormatError,
    IntegrityError,
    MissingObjectError,
    ObjectNotFoundError,
    StorageError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.values import ParentLink

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from weightslab.engine.repository.consulting import Desk, Needs
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.memory import Memory
    from weightslab.engine.storage.store import KeyStat, Store
    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["Catalog", "CheckpointEntry", "ExperimentEntry", "ScanCatalog", "TensorPlace"]

T = TypeVar("T")
_MIN_PLACE_BYTES: Final = 1024  # smaller tensors are written again: they cost less than their row


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """One committed checkpoint as a listing shows it.

    Attributes:
        name: experiment hash, step, revision.
        sequence: order of commit within the experiment; 0 if the manifest is damaged.
        created_at: aware UTC time, None if damaged.
        digest: `sha256:...` of the manifest.
        metrics: name -> number.
        parent: where the weights came from, None if damaged.
        size_bytes: bytes of the tensor files.
        parts: `model`, `model.{name}`, `training`.
        damaged: why the manifest cannot be used; None for a good one.
    """

    name: CheckpointName
    sequence: int = 0
    created_at: datetime | None = None
    digest: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    parent: ParentLink | None = None
    size_bytes: int = 0
    parts: tuple[str, ...] = ()
    damaged: str | None = None

    def as_parent(self) -> ParentLink:
        """Return the link with which a checkpoint names this one as its parent."""
        return ParentLink(
            kind="checkpoint",
            exp_hash=self.name.exp_hash,
            step=self.name.step,
            revision=self.name.revision,
            manifest_digest=self.digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """Where the bytes of a tensor are said to be committed: a hint, to be linked and verified.

    Attributes:
        name: the checkpoint.
        file: record of the file in that checkpoint.
        tensor: record of the tensor in that file.
    """

    name: CheckpointName
    file: FileRecord
    tensor: TensorRecord

    @property
    def key(self) -> str:
        """Key of the file."""
        return self.name.file_key(self.file.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentEntry:
    """One experiment as a listing shows it; `record` is None if `experiment.json` is damaged."""

    exp_hash: str
    record: ExperimentRecord | None = None
    damaged: str | None = None


class Catalog(Protocol):
    """Answers what is there; scanned or indexed."""

    def exp_hashes(self, prefix: str = "") -> list[str]:
        """Return the hashes of all experiments that begin with `prefix`, ascending."""
        ...

    def experiment(self, exp_hash: str) -> ExperimentEntry | None:
        """Return the experiment, None if there is none."""
        ...

    def experiments(self) -> list[ExperimentEntry]:
        """Return all experiments, oldest first, damaged ones last."""
        ...

    def checkpoints(self, exp_hash: str) -> list[CheckpointEntry]:
        """Return all checkpoints in the order of their sequence, damaged ones first."""
        ...

    def next_sequence(self, exp_hash: str) -> int:
        """Return a number above the sequence of every checkpoint of the experiment.

        A manifest that cannot be read now may be readable later (descriptors ran out, a disk came
        back, a copy was restored), so one number is left free for each of them.
        """
        ...

    def latest(self, exp_hash: str | None = None) -> CheckpointEntry | None:
        """Return the newest checkpoint with a readable manifest; None if there is none.

        Of one experiment: the one committed last (highest sequence). Of the root: the one with the
        highest creation time.
        """
        ...

    def locate(self, digests: Collection[str]) -> dict[str, list[TensorPlace]]:
        """Return digest -> places where these bytes are committed; absent for unknown ones.

        Of several links to one file one place is enough, and of many files that hold a tensor a
        few. Tensors below 1 KiB need not be known.
        """
        ...

    @property
    def memory(self) -> Memory:
        """What is remembered for lineage and audits."""
        ...

    def consult(self, needs: Needs, question: Callable[[Desk], T]) -> T:
        """Ask an index of the root a question of one's own, see `query`.

        Args:
            needs: what the question looks at.
            question: called with a `Desk`, more than once if the root changes meanwhile.
        """
        ...

    def refresh(self) -> None:
        """Forget everything remembered."""
        ...


class ScanCatalog:
    """A catalog that looks into the folders at each question."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checkpoints: dict[str, tuple[KeyStat, CheckpointEntry]] = {}
        self._experiments: dict[str, tuple[KeyStat, ExperimentEntry]] = {}
        self._tensors: dict[CheckpointName, dict[str, TensorPlace]] = {}

    @property
    def memory(self) -> Memory:
        """What is remembered for lineage and audits: nothing."""
        from weightslab.engine.repository.memory import ScanMemory  # which knows the index

        return ScanMemory(self)

    def refresh(self) -> None:
        """Forget everything remembered."""
        self._checkpoints.clear()
        self._experiments.clear()
        self._tensors.clear()

    def exp_hashes(self, prefix: str = "") -> list[str]:
        """Return the hashes of all folders that hold an experiment, ascending."""
        names = [name[:-1] for name in self._store.list(layout.CHECKPOINTS) if name.endswith("/")]
        found = [name for name in names if layout.is_exp_hash(name) and name.startswith(prefix)]
        return [name for name in found if self._is_experiment(name)]

    def _is_experiment(self, exp_hash: str) -> bool:
        # a folder that lost its record and still has checkpoints is a damaged experiment
        return self._store.stat(layout.experiment_key(exp_hash)) is not None or has_manifests(
            self._store, exp_hash
        )

    def experiments(self) -> list[ExperimentEntry]:
        """Return all experiments, oldest first, damaged ones last. O(experiments)."""
        entries = [self.experiment(exp_hash) for exp_hash in self.exp_hashes()]
        return by_age(entry for entry in entries if entry is not None)

    def experiment(self, exp_hash: str) -> ExperimentEntry | None:
        """Return the experiment, None if there is none."""
        key = layout.experiment_key(exp_hash)
        stat = self._store.stat(key)
        known = self._experiments.get(key)
        if stat is not None and known is not None and known[0] == stat:
            return known[1]
        entry, is_settled = examine_experiment(self._store, exp_hash)
        if stat is not None and entry is not None and is_settled:
            self._experiments[key] = (stat, entry)
        return entry

    def checkpoints(self, exp_hash: str) -> list[CheckpointEntry]:
        """Return all checkpoints in the order of their sequence, damaged ones first.

        O(checkpoints of the experiment).
        """
        entries = [self._entry(name) for name in self._manifest_names(exp_hash)]
        return in_order(e for e in entries if e is not None)

    def next_sequence(self, exp_hash: str) -> int:
        """Return a number above the sequence of every checkpoint of the experiment."""
        return sequence_after(self.checkpoints(exp_hash))

    def latest(self, exp_hash: str | None = None) -> CheckpointEntry | None:
        """Return the newest checkpoint with a readable manifest. O(checkpoints of what is asked)."""
        if exp_hash is not None:
            return newest_of(self.checkpoints(exp_hash))
        newest = (newest for h in self.exp_hashes() for newest in self._good(h))
        return max(newest, key=recency, default=None)

    def _good(self, exp_hash: str) -> list[CheckpointEntry]:
        return [e for e in self.checkpoints(exp_hash) if e.created_at is not None]

    def locate(self, digests: Collection[str]) -> dict[str, list[TensorPlace]]:
        """Return digest -> places where these bytes are committed. O(checkpoints of the root).

        Manifests are read once per process.
        """
        wanted = set(digests)
        found: dict[str, list[TensorPlace]] = {}
        for exp_hash in self.exp_hashes():
            for name in self._manifest_names(exp_hash):
                for digest, place in self._places(name).items():
                    if digest in wanted:
                        found.setdefault(digest, []).append(place)
        return found

    def consult(self, needs: Needs, question: Callable[[Desk], T]) -> T:
        """Ask an index that is made for the question. O(everything)."""
        from weightslab.engine.repository.consulting import consult_scan

        return consult_scan(self._store, self, needs, question)

    def _places(self, name: CheckpointName) -> dict[str, TensorPlace]:
        known = self._tensors.get(name)
        if known is not None:
            return known
        try:
            places = places_of(read_manifest(self._store, name))
        except CheckpointError:
            return {}  # what cannot be read offers nothing; the listing says that it is damaged
        self._tensors[name] = places
        return places

    def _manifest_names(self, exp_hash: str) -> list[CheckpointName]:
        return manifest_names(self._store, exp_hash)

    def _entry(self, name: CheckpointName) -> CheckpointEntry | None:
        key = name.manifest_key
        stat = self._store.stat(key)
        if stat is None:
            return None  # deleted since the listing
        known = self._checkpoints.get(key)
        if known is not None and known[0] == stat:
            return known[1]
        found = examine(self._store, name)
        if found is not None and found.is_settled:
            self._checkpoints[key] = (stat, found.entry)
        return None if found is None else found.entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found in the place of a manifest.

    Attributes:
        entry: as a listing shows it.
        manifest: None if it is damaged.
        is_settled: False where the file could not be read now, and may be readable later.
        content: the bytes of the file; None if it could not be read.
    """

    entry: CheckpointEntry
    manifest: Manifest | None = None
    is_settled: bool = True
    content: memoryview | None = None


def examine_experiment(store: Store, exp_hash: str) -> tuple[ExperimentEntry | None, bool]:
    """Read and check an experiment record, damaged or not; None if there is no experiment.

    Returns: the experiment, and False where the file could not be read now and may be later.
    """
    key = layout.experiment_key(exp_hash)
    if store.stat(key) is None:
        if not has_manifests(store, exp_hash):
            return None, False
        return ExperimentEntry(exp_hash=exp_hash, damaged="experiment.json is missing"), False
    try:
        record = ExperimentRecord.from_bytes(store.map(key), exp_hash=exp_hash)
        return ExperimentEntry(exp_hash=exp_hash, record=record), True
    except ObjectNotFoundError:
        return None, False  # deleted since the stat
    except StorageError as error:
        return ExperimentEntry(exp_hash=exp_hash, damaged=str(error)), False
    except (IntegrityError, FormatError) as error:
        return ExperimentEntry(exp_hash=exp_hash, damaged=str(error)), True


def examine(store: Store, name: CheckpointName) -> Examined | None:
    """Read and check a manifest, damaged or not; None if it is not there."""
    try:
        content = store.map(name.manifest_key)
    except ObjectNotFoundError:
        return None
    except StorageError as error:  # may be mended from outside
        return Examined(entry=CheckpointEntry(name=name, damaged=str(error)), is_settled=False)
    try:
        manifest = Manifest.from_bytes(content, name=name)
        return Examined(entry=entry_of(manifest), manifest=manifest, content=content)
    except (IntegrityError, FormatError) as error:
        return Examined(entry=CheckpointEntry(name=name, damaged=str(error)), content=content)


def by_age(entries: Iterable[ExperimentEntry]) -> list[ExperimentEntry]:
    """Return experiments, oldest first, damaged ones last, both in the order of their hashes."""
    found = sorted(entries, key=lambda e: e.exp_hash)
    good = [e for e in found if e.record is not None]
    good.sort(key=lambda e: (e.record.created_at, e.exp_hash) if e.record else ())
    return good + [e for e in found if e.record is None]


def has_manifests(store: Store, exp_hash: str) -> bool:
    """Tell whether an experiment has checkpoints; one whose folder cannot be read may have some."""
    try:
        return bool(manifest_names(store, exp_hash))
    except CheckpointError:
        return True  # a link in place of the folder hides no other experiment


def manifest_names(store: Store, exp_hash: str) -> list[CheckpointName]:
    """Return the names of all checkpoints of an experiment, damaged or not, read anew."""
    files = store.list(layout.model_folder(exp_hash))
    names = (manifest_name(file, exp_hash) for file in files)
    return [name for name in names if name is not None]


@lru_cache(maxsize=4096)  # asked for the same names at each look, 3 us each
def manifest_name(file: str, exp_hash: str) -> CheckpointName | None:
    """Return the checkpoint whose manifest a file of an experiment is, by its name; else None."""
    found = layout.parse_checkpoint_file(file) if file.endswith(".json") else None
    is_manifest = found is not None and found[1] == "json" and found[0].exp_hash == exp_hash
    return found[0] if found is not None and is_manifest else None


def places_of(manifest: Manifest) -> dict[str, TensorPlace]:
    """Return digest -> place of the tensors that are worth finding again."""
    files = {file.name: file for file in manifest.files}
    return {
        t.digest: TensorPlace(name=manifest.name, file=files[t.file], tensor=t)
        for t in manifest.tensors.values()
        if t.size_bytes >= _MIN_PLACE_BYTES
    }


def entry_of(manifest: Manifest) -> CheckpointEntry:
    """Return the listing entry of a manifest."""
    return CheckpointEntry(
        name=manifest.name,
        sequence=manifest.sequence,
        created_at=manifest.created_at,
        digest=manifest.digest,
        metrics=manifest.metric_values(),
        parent=manifest.parent,
        size_bytes=manifest.size_bytes,
        parts=manifest.parts,
    )


def in_order(entries: Iterable[CheckpointEntry]) -> list[CheckpointEntry]:
    """Return entries of one experiment in the order of their sequence, damaged ones first.

    Ties of the sequence (two processes that committed at once) are ordered by time, step and
    revision.
    """
    return sorted(entries, key=_order)


def sequence_after(entries: Iterable[CheckpointEntry]) -> int:
    """Return a number above all sequences, with one left free for each damaged checkpoint."""
    highest, hidden = 0, 0
    for entry in entries:
        highest = max(highest, entry.sequence)
        hidden += entry.damaged is not None
    return 1 + hidden + highest


def newest_of(entries: Sequence[CheckpointEntry]) -> CheckpointEntry | None:
    """Return the last readable one of entries in order."""
    return next((e for e in reversed(entries) if e.created_at is not None), None)


def recency(entry: CheckpointEntry) -> tuple[Any, ...]:
    """Return what orders readable checkpoints of different experiments."""
    name = entry.name
    return entry.created_at, entry.sequence, name.exp_hash, name.step, name.revision


def _order(entry: CheckpointEntry) -> tuple[Any, ...]:
    moment = entry.created_at.timestamp() if entry.created_at else 0.0
    return entry.sequence, moment, entry.name.step, entry.name.revision


def read_manifest(store: Store, name: CheckpointName) -> Manifest:
    """Read, check and return a manifest.

    Raises: CheckpointNotFoundError, IntegrityError, FormatError.
    """
    try:
        data = store.map(name.manifest_key)
    except ObjectNotFoundError as error:
        raise CheckpointNotFoundError(
            f"no checkpoint {name.stem}", context={"key": name.manifest_key}
        ) from error
    return Manifest.from_bytes(data, name=name)


def map_file(store: Store, name: CheckpointName, file_name: str) -> memoryview:
    """Map a file of a checkpoint.

    Raises: MissingObjectError if the manifest names a file that is not there.
    """
    try:
        return store.map(name.file_key(file_name))
    except ObjectNotFoundError as error:
        raise MissingObjectError(
            f"checkpoint {name.stem} names {file_name}, which is not there",
            context={"exp_hash": name.exp_hash, "step": name.step, "key": file_name},
        ) from error
