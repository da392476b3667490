"""The one error tree: every failure the package reports on purpose is a `CheckpointError`.

    CheckpointError
      NotFoundError (+FileNotFoundError)     ExperimentNotFoundError, CheckpointNotFoundError,
                                             ObjectNotFoundError                        exit 10
      AlreadyExistsError (+FileExistsError)                                             exit 11
      PinnedError                                                                       exit 12
      IntegrityError                         DigestMismatchError, TruncatedError,
                                             MissingObjectError, ExperimentHashClashError  exit 20
      FormatError (+ValueError)              UnsupportedVersionError, InvalidManifestError,
                                             UnsafePickleError, SourceChangedError,
                                             NotStorableError (+TypeError), FilterError exit 21
      IdentityError (+TypeError)             NotCanonicalError                          exit 22
      StateMismatchError (+ValueError)       .missing .unexpected .shape_changes        exit 23
      ReplayMismatchError                    .report                                    exit 24
      StorageError (+OSError)                ReadOnlyStoreError, LockedError,
                                             StorageFullError                           exit 30
      AsyncSaveError                                                                    exit 31
      MissingExtraError (+ImportError)                                                  exit 40

`ValueError` and `TypeError` alone stand for wrong arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AlreadyExistsError",
    "AsyncSaveError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "DigestMismatchError",
    "ExperimentHashClashError",
    "ExperimentNotFoundError",
    "FilterError",
    "FormatError",
    "IdentityError",
    "IntegrityError",
    "InvalidManifestError",
    "LockedError",
    "MissingExtraError",
    "MissingObjectError",
    "NotCanonicalError",
    "NotFoundError",
    "NotStorableError",
    "ObjectNotFoundError",
    "PinnedError",
    "ReadOnlyStoreError",
    "ReplayMismatchError",
    "SourceChangedError",
    "StateMismatchError",
    "StorageError",
    "StorageFullError",
    "TruncatedError",
    "UnsafePickleError",
    "UnsupportedVersionError",
]

_FILTER_COLUMNS: Final = 96  # of a filter that are shown around the place of an error


class CheckpointError(Exception):
    """Base of all errors of this package.

    Args:
        message: what happened, with the values.
        hint: what to do about it; appended to the text of the error.
        context: facts for programs: `exp_hash`, `step`, `key`, ...
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, hint: str | None = None, context: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context: dict[str, object] = dict(context or {})

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class NotFoundError(CheckpointError, FileNotFoundError):
    """Something that was asked for by name is not there."""

    exit_code = 10


class ExperimentNotFoundError(NotFoundError):
    """No experiment has this hash or prefix, or several have the prefix."""


class CheckpointNotFoundError(NotFoundError):
    """The experiment has no such step or revision."""


class ObjectNotFoundError(NotFoundError):
    """The ledger or the store has no object of this name."""


class AlreadyExistsError(CheckpointError, FileExistsError):
    """Something is in the way and is not overwritten."""

    exit_code = 11


class PinnedError(CheckpointError):
    """What is to be deleted is pinned; nothing was changed."""

    exit_code = 12


class IntegrityError(CheckpointError):
    """What is on disk is not what was written."""

    exit_code = 20


class DigestMismatchError(IntegrityError):
    """The bytes read have another digest than the bytes written."""


class TruncatedError(IntegrityError):
    """A file is shorter or longer than what was written."""


class MissingObjectError(IntegrityError):
    """A manifest names a file that is not there."""


class ExperimentHashClashError(IntegrityError):
    """Two different full digests share the 16 digits that name a folder."""


class FormatError(CheckpointError, ValueError):
    """Content that is not in a form this version understands."""

    exit_code = 21


class UnsupportedVersionError(FormatError):
    """Written by a newer version of the package than this one."""


class InvalidManifestError(FormatError):
    """A record parses, and its digest fits, but what it says cannot be right."""


class UnsafePickleError(FormatError):
    """A pickle names types beyond plain data, so that reading it could run code."""


class SourceChangedError(FormatError):
    """A file of a source changed while it was read."""


class NotStorableError(FormatError, TypeError):
    """A value or a tensor that has no place in the on-disk format."""


class FilterError(FormatError):
    """A filter or an order that cannot be read, or that asks for what nothing has.

    Attributes:
        text: the filter; None where only a part of it is known.
        position: of the character that it is about, from 0.
        picture: the filter with a mark under that place.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        position: int = 0,
        hint: str | None = None,
        what: str = "filter",
        context: Mapping[str, object] | None = None,
    ) -> None:
        self.text, self.position, self.picture = text, position, ""
        facts = dict(context or {})
        if text is not None:
            message = f"{what}, character {position + 1}: {message}"
            shown = "".join(c if c.isprintable() else "?" for c in text)
            start = max(0, position - _FILTER_COLUMNS // 2)
            line = shown[start : start + _FILTER_COLUMNS]
            self.picture = f"  {line}\n  {' ' * (position - start)}^"
            facts |= {what: text, "position": position}
        super().__init__(message, hint=hint, context=facts)

    def __str__(self) -> str:
        """Return what is wrong, what to do, and the filter with a mark under the place."""
        told = super().__str__()
        return f"{told}\n{self.picture}" if self.picture else told


class IdentityError(CheckpointError, TypeError):
    """An object cannot be described, so it cannot be part of a hash."""

    exit_code = 22


class NotCanonicalError(IdentityError):
    """A value that has no deterministic form."""


class StateMismatchError(CheckpointError, ValueError):
    """A saved state and a live object do not fit each other; nothing was changed.

    Attributes:
        missing: entries of the live object that the checkpoint does not have.
        unexpected: entries of the checkpoint that the live object does not have.
        shape_changes: name -> text such as `float32 [10, 128] -> float32 [10, 256]`
            (checkpoint -> live).
    """

    exit_code = 23

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        shape_changes: Mapping[str, str] | None = None,
        hint: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.shape_changes = dict(shape_changes or {})


class ReplayMismatchError(CheckpointError):
    """Steps that were taken again did not come out as they were recorded.

    Attributes:
        report: the `ReplayReport`.
    """

    exit_code = 24

    def __init__(
        self,
        message: str,
        *,
        report: object = None,
        hint: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.report = report


class StorageError(CheckpointError, OSError):
    """The file system refused; `__cause__` is its own error."""

    exit_code = 30


class ReadOnlyStoreError(StorageError):
    """The root was opened for reading, or its file system is read-only."""


class LockedError(StorageError):
    """Another process holds what is needed."""


class StorageFullError(StorageError):
    """No space, no inodes or no quota left."""


class AsyncSaveError(CheckpointError):
    """A save in the background failed; `__cause__` is its own error.

    Raised by the next save, `wait` or `close`, which did nothing else.
    """

    exit_code = 31


class MissingExtraError(CheckpointError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 40
