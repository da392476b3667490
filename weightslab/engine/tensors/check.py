"""The check of a tensor file against its records: every byte, or chosen tensors. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import DigestMismatchError, InvalidManifestError, TruncatedError
from weightslab.engine.tensors.workers import for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["FileCheck", "verify_file", "verify_together"]

_BIG_BYTES: Final = 1 << 20  # 1 MiB: hashing takes 40 us there, handing work to a thread about 10
_NAMED: Final = 5  # damaged tensors that a message lists


class _Span:
    """Bytes [start, stop) of a file that must have `digest`."""

    __slots__ = ("digest", "label", "start", "stop", "view")

    def __init__(self, label: str, bounds: tuple[int, int], digest: str, view: memoryview) -> None:
        self.label, self.digest, self.view = label, digest, view
        self.start, self.stop = bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """What is to be checked of a tensor file; without `names`, each single bit of it.

    Attributes:
        buffer: the whole file.
        file: its record.
        tensors: name -> record of the tensors in this file.
        names: check only these tensors, and not the header.
        with_header: check the header beside `names`.
    """

    buffer: bytes | bytearray | memoryview
    file: FileRecord
    tensors: Mapping[str, TensorRecord]
    names: Collection[str] | None = None
    with_header: bool = False


def verify_file(
    buffer: bytes | bytearray | memoryview,
    file: FileRecord,
    tensors: Mapping[str, TensorRecord],
    *,
    names: Collection[str] | None = None,
    with_header: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Check a tensor file; the arguments are those of `FileCheck`.

    Args:
        progress: called with a number of bytes after they were hashed, from several threads.
    Raises: as `verify_together`.
    """
    check = FileCheck(
        buffer=buffer, file=file, tensors=tensors, names=names, with_header=with_header
    )
    verify_together([check], progress=progress)


def verify_together(
    checks: Sequence[FileCheck], *, progress: Callable[[int], object] = lambda _: None
) -> None:
    """Check several tensor files, all sizes first; header and tensors are hashed in several threads.

    Where the records leave a byte of a file uncovered, the whole file is hashed as well.

    Args:
        checks: the files.
        progress: called with a number of bytes after they were hashed, from several threads.
    Raises: TruncatedError if a size differs, DigestMismatchError naming the first damaged file and
        its tensors, InvalidManifestError if a record points outside its file, FormatError for a
        digest algorithm of a newer version. ValueError if `names` has a name that `tensors` has not.
    """
    spans = [_spans(check) for check in checks]
    verdicts = _hash([span for found in spans for span in found], progress)
    for check, found in zip(checks, spans, strict=True):
        damaged = [span.label for span in found if not verdicts[span]]
        if damaged:
            more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
            raise DigestMismatchError(
                f"{check.file.name} is damaged: {', '.join(damaged[:_NAMED])}{more} "
                f"{'do' if len(damaged) > 1 else 'does'} not have the digest that was recorded",
                context={"file": check.file.name, "damaged": damaged},
            )


def _spans(check: FileCheck) -> list[_Span]:
    """Return what has to be hashed of a file, after a look at its size and records."""
    view, file = memoryview(check.buffer).cast("B"), check.file
    if len(view) != file.size_bytes:
        raise TruncatedError(
            f"{file.name} has {len(view)} bytes instead of {file.size_bytes}: "
            f"{'cut' if len(view) < file.size_bytes else 'something was appended'}",
            context={"file": file.name},
        )
    spans = {name: _span(view, name, record, file) for name, record in check.tensors.items()}
    head = _Span("the header", (0, file.header_size_bytes), file.header_digest, view)
    if check.names is None:
        every = [head, *spans.values()]
        if not _cover(every, file.size_bytes):
            every.insert(0, _Span("the whole file", (0, file.size_bytes), file.digest, view))
        return every
    if unknown := sorted(set(check.names) - set(spans)):
        raise ValueError(f"{file.name} has no tensor {', '.join(map(repr, unknown))}")
    return [*[head] * check.with_header, *(spans[name] for name in sorted(set(check.names)))]


def _span(view: memoryview, name: str, record: TensorRecord, file: FileRecord) -> _Span:
    stop = record.offset + record.size_bytes
    if record.file != file.name or stop > file.size_bytes:
        raise InvalidManifestError(
            f"tensor {name!r} is said to lie in bytes {record.offset} to {stop} of {record.file}, "
            f"not within the {file.size_bytes} bytes of {file.name}"
        )
    return _Span(f"tensor {name!r}", (record.offset, stop), record.digest, view)


def _cover(spans: list[_Span], size_bytes: int) -> bool:
    reached = 0
    for span in sorted(spans, key=lambda s: s.start):
        if span.start > reached:
            return False
        reached = max(reached, span.stop)
    return reached >= size_bytes


def _hash(spans: list[_Span], progress: Callable[[int], object]) -> dict[_Span, bool]:
    """Return span -> whether it has its digest."""
    verdicts: dict[_Span, bool] = {}

    def look(span: _Span) -> None:
        algorithm = span.digest.partition(":")[0]
        found = digest_bytes(span.view[span.start : span.stop], algorithm=algorithm)
        progress(span.stop - span.start)
        verdicts[span] = found == span.digest

    big = [span for span in spans if span.stop - span.start >= _BIG_BYTES]
    for_each(look, sorted(big, key=lambda span: span.start - span.stop))
    for span in spans:
        if span not in verdicts:
            look(span)
    return verdicts
