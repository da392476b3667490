"""Bundling: experiments with their lineage in one file, every byte verified on its way there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from weightslab.engine.digests import ByteHasher, digest_bytes
from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    IntegrityError,
    NotFoundError,
    ObjectNotFoundError,
    TruncatedError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.arriving import component_keys
from weightslab.engine.repository.catalog import map_file
from weightslab.engine.repository.claim import reading
from weightslab.engine.repository.data_file import sidecar_key
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.notes import read_note
from weightslab.engine.repository.verify import keys_beside, verify_experiment
from weightslab.engine.storage.new_file import new_file
from weightslab.engine.transfer.bundle_file import LIST_NAME, BundleList
from weightslab.engine.transfer.choice import choose
from weightslab.engine.transfer.report import inert
from weightslab.engine.transfer.tar_form import END, file_header, link_header, padding

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.transfer.choice import Choice

__all__ = ["BundleReport", "bundle"]

_MAX_LINES: Final = 40  # what a terminal shows without scrolling
_CHUNK_BYTES: Final = 8 << 20  # hashed and written while it is in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What was bundled.

    Attributes:
        path: the file.
        size_bytes: its length.
        experiments: those in it, the oldest first.
        checkpoints: names of those in it, such as `3f2a9c1b00d14e77_step_000100`.
        gaps: what belongs to the lineage and is not in the root, or was deleted meanwhile.
        left_out: what is damaged, or was being moved: (name, reason).
    """

    path: Path
    size_bytes: int
    experiments: tuple[str, ...]
    checkpoints: tuple[str, ...]
    gaps: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def is_complete(self) -> bool:
        """True if everything that was chosen is in it; gaps of the lineage do not count."""
        return not self.left_out

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "experiments": list(self.experiments),
            "checkpoints": list(self.checkpoints),
            "gaps": list(self.gaps),
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
            "is_complete": self.is_complete,
        }

    def __str__(self) -> str:
        """Return a line, and one for each gap."""
        head = (
            f"{self.path}: {len(self.experiments):,} experiments, {len(self.checkpoints):,}"
            f" checkpoints, {self.size_bytes:,} bytes"
        )
        bad = [f"left out: {name}: {reason}" for name, reason in self.left_out]
        lines = [head, *bad, *(f"not in it: {gap}" for gap in self.gaps)]
        shown, left = lines[:_MAX_LINES], lines[_MAX_LINES:]
        more = [f"... and {len(left):,} more"] if left else []
        return "\n".join(inert(line) for line in [*shown, *more])


def bundle(
    root: Keeper,
    path: str | os.PathLike[str],
    *references: str,
    lineage: str = "full",
    progress: Callable[[int, int], object] | None = None,
) -> BundleReport:
    """Write experiments or checkpoints with their lineage into one new file, which `unbundle` takes.

    Every byte is verified on its way. Names, notes, tags, pins, configs, samples, backups and sessions go
    with their experiment; metrics that were only logged stay. What savers commit meanwhile is not in it.
    The same choice of the same root gives the same bytes.

    Args:
        path: the file to make; an existing one is never replaced.
        references: `3f2a`, an experiment with all its checkpoints; `3f2a@100`, `latest`, ... one
            checkpoint; none: everything in the root.
        lineage: `full`: with the experiments and checkpoints that led to these; `records`: with the
            experiments alone, so that audits and comparisons still work; `none`: as chosen.
        progress: called with bytes done and bytes in all.
    Returns: what is in it, and what was left out because it is damaged.
    Raises: AlreadyExistsError; ExperimentNotFoundError, CheckpointNotFoundError; ValueError; StorageError.
        There is no file then.
    """
    target = Path(path).absolute()
    choice = choose(root, references, lineage)
    with new_file(target) as file:
        writer = _Writer(root.store, file, choice, progress)
        writer.run()
    return BundleReport(
        path=target,
        size_bytes=target.stat().st_size,
        experiments=tuple(writer.taken),
        checkpoints=tuple(name.stem for names in writer.taken.values() for name in names),
        gaps=tuple(writer.gaps),
        left_out=tuple(writer.left_out),
    )


@dataclass(slots=True)
class _Writer:
    """Writes a bundle; one file of the root is open at a time."""

    store: Store
    file: IO[bytes]
    choice: Choice
    progress: Callable[[int, int], object] | None
    taken: dict[str, list[CheckpointName]] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    _new: dict[str, tuple[int, int]] = field(default_factory=dict)  # what the present block wrote
    _members: dict[str, tuple[int, str]] = field(default_factory=dict)
    _written: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    _done: int = 0
    _total: int = 0

    def run(self) -> None:
        self.gaps += self.choice.gaps
        self._total = self._estimate()
        for exp_hash, names in self.choice.checkpoints.items():
            with self._whole(f"experiment {exp_hash}"):
                self._add_experiment(exp_hash)
                self.taken[exp_hash] = []
            for name in names if exp_hash in self.taken else ():
                with self._whole(name.stem):
                    self._add_checkpoint(name)
                    self.taken[exp_hash].append(name)
        self._finish()

    @contextmanager
    def _whole(self, what: str) -> Iterator[None]:
        """Take out again what the block has written, if it finds that something is damaged or gone."""
        at = self.file.tell()
        self._new.clear()
        try:
            yield
        except CheckpointError as error:  # of the root; that of the new file is an OSError
            self.file.seek(at)
            self.file.truncate()
            for key, place in self._new.items():
                del self._members[key]
                if self._written[place][0] == key:
                    del self._written[place]
            if isinstance(error, NotFoundError):
                self.gaps.append(f"{what} was deleted meanwhile")
            else:
                self.left_out.append((what, str(error)))

    def _estimate(self) -> int:
        """Return the bytes of the files that there are, as far as names tell; for the progress."""
        total = 0
        for exp_hash, names in self.choice.checkpoints.items():
            wanted, folder = {*names}, layout.model_folder(exp_hash)
            for file in self.store.list(folder) if self.progress is not None else ():
                found = layout.parse_checkpoint_file(file)
                if found is not None and found[0] in wanted:
                    stat = self.store.stat(folder + file)
                    total += 0 if stat is None else stat.size_bytes
        return total

    def _add_experiment(self, exp_hash: str) -> None:
        store, key = self.store, layout.experiment_key(exp_hash)
        content = store.map(key)
        record = ExperimentRecord.from_bytes(content, exp_hash=exp_hash)
        own = component_keys(store, record)
        bad = {finding.key: str(finding) for finding in verify_experiment(store, exp_hash)}
        for name in (key, *own):
            if name in bad:
                raise IntegrityError(bad[name])
        beside = [k for k in keys_beside(store, exp_hash) if k not in own]
        self.left_out += [(k.rpartition("/")[2], bad[k]) for k in beside if k in bad]
        for name in [*own, *(k for k in beside if k not in bad)]:
            if not self._is_wanted(exp_hash, name):
                continue
            self._add(name, digest_bytes(store.map(name)))
            if name.endswith(".h5"):
                self._add(sidecar_key(name), digest_bytes(store.map(sidecar_key(name))))
        self._add(key, digest_bytes(content))

    def _is_wanted(self, exp_hash: str, key: str) -> bool:
        if not key.startswith(layout.notes_folder(exp_hash)):
            return True
        return self.choice.wants(read_note(self.store, exp_hash, key))

    def _add_checkpoint(self, name: CheckpointName) -> None:
        with reading(self.store, name) as manifest:
            for file in manifest.files:
                self._check_size(manifest, file.name, file.size_bytes)
                self._add(name.file_key(file.name), file.digest)
            self._add(name.manifest_key, digest_bytes(self.store.map(name.manifest_key)))

    def _check_size(self, manifest: Manifest, file: str, size_bytes: int) -> None:
        data = map_file(self.store, manifest.name, file)
        if len(data) != size_bytes:
            raise TruncatedError(f"{file} has {len(data)} bytes, not {size_bytes}")

    def _add(self, key: str, digest: str) -> None:
        """Write a file; one whose bytes are in the archive already becomes a link to them."""
        data, stat = self.store.map(key), self.store.stat(key)
        if stat is None:
            raise ObjectNotFoundError(f"{key} was deleted meanwhile")
        place = stat.device, stat.inode
        known = self._written.get(place)
        if known is not None and known[1] == digest:
            self.file.write(link_header(key, known[0]))
        else:
            self.file.write(file_header(key, len(data)))
            self._pour(key, data, digest)
            self.file.write(padding(len(data)))
            self._written[place] = key, digest
        self._members[key] = len(data), digest
        self._new[key] = place
        self._count(len(data))

    def _pour(self, key: str, data: memoryview, digest: str) -> None:
        hasher = ByteHasher()
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            hasher.update(chunk)
            self.file.write(chunk)
        if hasher.text() != digest:
            raise DigestMismatchError(
                f"{key.rpartition('/')[2]} is damaged: its bytes do not have the recorded digest",
                context={"key": key},
            )

    def _count(self, size_bytes: int) -> None:
        self._done += size_bytes
        if self.progress is not None:
            self.progress(self._done, max(self._total, self._done))

    def _finish(self) -> None:
        listed = BundleList(
            checkpoints=self.taken,
            whole=self.choice.whole,
            lineage=self.choice.lineage,
            gaps=tuple(self.gaps),
            members=self._members,
        ).to_bytes()
        self.file.write(file_header(LIST_NAME, len(listed)))
        self.file.write(listed + padding(len(listed)) + END)
