"""What a verification found, and how far it has come."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightslab.engine.errors import FormatError, IntegrityError, UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightslab.engine.errors import CheckpointError
    from weightslab.engine.repository.layout import CheckpointName

__all__ = ["Finding", "Meter", "Tally", "VerifyReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        key: what it is about.
        problem: what is wrong, in words.
        is_damage: False if the content may be good: it could not be read (permissions, a failing
            disk), or was written by a newer version of this package.
        exp_hash: the experiment.
        step: step of the checkpoint; None for a file of the experiment itself.
        revision: revision of the checkpoint.
    """

    key: str
    problem: str
    is_damage: bool = True
    exp_hash: str | None = None
    step: int | None = None
    revision: int | None = None

    def __str__(self) -> str:
        """Return what it is about and the problem, in one line."""
        is_named = self.key.rpartition("/")[2] in self.problem
        return self.problem if is_named else f"{self.key}: {self.problem}"

    @classmethod
    def of(cls, key: str, error: CheckpointError, *, name: CheckpointName | None = None) -> Finding:
        """Return what an error says about `key`, a file of the checkpoint `name`."""
        lost = isinstance(error, (IntegrityError, FormatError))
        return cls(
            key=key,
            problem=str(error),
            is_damage=lost and not isinstance(error, UnsupportedVersionError),
            exp_hash=None if name is None else name.exp_hash,
            step=None if name is None else name.step,
            revision=None if name is None else name.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifyReport:
    """What a verification found. Iterates over its findings; equal to the list of them.

    Attributes:
        findings: what is wrong; empty if everything is as it was written.
        size_bytes: bytes of all files that were looked at.
        num_files: how many files these are; a file with several names counts under each.
        num_checkpoints: checkpoints among what was verified.
        num_experiments: experiments whose own files were verified.
    """

    findings: tuple[Finding, ...] = ()
    size_bytes: int = 0
    num_files: int = 0
    num_checkpoints: int = 0
    num_experiments: int = 0

    def __iter__(self) -> Iterator[Finding]:
        """Yield the findings."""
        return iter(self.findings)

    def __len__(self) -> int:
        """Return the number of findings."""
        return len(self.findings)

    def __getitem__(self, index: int) -> Finding:
        """Return one finding."""
        return self.findings[index]

    def __eq__(self, other: object) -> bool:
        """Compare the findings, with those of a report or with a list."""
        if isinstance(other, VerifyReport):
            return self.findings == other.findings
        return list(self.findings) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # as a list

    @property
    def damaged(self) -> tuple[tuple[str, int, int], ...]:
        """The damaged checkpoints as (exp_hash, step, revision), each once."""
        found = {
            (f.exp_hash, f.step, f.revision): None
            for f in self.findings
            if f.is_damage and f.exp_hash and f.step is not None and f.revision is not None
        }
        return tuple(found)

    def __str__(self) -> str:
        """Return one line of numbers, and one for each finding."""
        head = (
            f"{self.num_files} files, {self.size_bytes:,} bytes, {self.num_checkpoints} checkpoints: "
            f"{len(self.findings) or 'no'} finding{'' if len(self.findings) == 1 else 's'}"
        )
        return "\n".join([head, *map(str, self.findings)])


class Tally:
    """How far a verification has come, and which files it knows already. Thread-safe.

    Args:
        total_bytes: size of everything that will be looked at.
        progress: called with the bytes done and `total_bytes`, one call at a time.
    """

    def __init__(
        self, total_bytes: int = 0, progress: Callable[[int, int], object] | None = None
    ) -> None:
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.num_files = 0
        # spans (offset, size, digest) of a file, and the digest of all of it, that were right
        self.known: dict[tuple[int, int, int], set[tuple[int, int, str]]] = {}
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        """Count bytes that are done."""
        with self._lock:
            self.done_bytes += size_bytes
            if self._progress is not None:
                self._progress(self.done_bytes, max(self.total_bytes, self.done_bytes))


class Meter:
    """Counts the bytes of one file: each once, and all of them when the file is done."""

    def __init__(self, tally: Tally, size_bytes: int) -> None:
        self._tally = tally
        self._left = size_bytes
        self._lock = threading.Lock()
        tally.num_files += 1

    def __call__(self, size_bytes: int) -> None:
        """Count bytes that were hashed; what is hashed twice counts once."""
        with self._lock:
            counted = min(size_bytes, self._left)
            self._left -= counted
        if counted:
            self._tally.add(counted)

    def finish(self) -> None:
        """Count what was not hashed: the file was cut, or is known under another name."""
        self(self._left)
