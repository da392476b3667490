"""The check of a tensor file against its records: every byte, or chosen tensors. Free of torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import DigestMismatchError, InvalidManifestError, TruncatedError
from weightslab.engine.tensors.workers import num_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["verify_file"]

_BIG_BYTES: Final = 1 << 20  # 1 MiB: hashing takes 40 us there, handing work to a thread about 10
_NAMED: Final = 5  # damaged tensors that a message lists


class _Span(NamedTuple):
    """Bytes [start, stop) of the file that must have `digest`."""

    label: str
    start: int
    stop: int
    digest: str


def verify_file(
    buffer: bytes | bytearray | memoryview,
    file: FileRecord,
    tensors: Mapping[str, TensorRecord],
    *,
    names: Collection[str] | None = None,
    with_header: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Check a tensor file; without `names`, each single bit of it.

    Header and tensors are hashed in several threads. Where the records leave a byte of the file
    uncovered, the whole file is hashed as well.

    Args:
        buffer: the whole file.
        file: its record.
        tensors: name -> record of the tensors in this file.
        names: check only these tensors, and not the header.
        with_header: check the header beside `names`.
        progress: called with a number of bytes after they were hashed, from several threads.
    Raises: TruncatedError if the size differs, DigestMismatchError naming file and tensors,
        InvalidManifestError if a record points outside the file, FormatError for a digest algorithm
        of a newer version. ValueError if `names` has a name that `tensors` has not.
    """
    view = memoryview(buffer).cast("B")
    if len(view) != file.size_bytes:
        raise TruncatedError(
            f"{file.name} has {len(view)} bytes instead of {file.size_bytes}: "
            f"{'cut' if len(view) < file.size_bytes else 'something was appended'}",
            context={"file": file.name},
        )
    spans = {name: _span(name, record, file) for name, record in tensors.items()}
    head = _Span("the header", 0, file.header_size_bytes, file.header_digest)
    if names is None:
        every = [head, *spans.values()]
        if not _cover(every, file.size_bytes):
            every.insert(0, _Span("the whole file", 0, file.size_bytes, file.digest))
    else:
        if unknown := sorted(set(names) - set(spans)):
            raise ValueError(f"{file.name} has no tensor {', '.join(map(repr, unknown))}")
        every = [*[head] * with_header, *(spans[name] for name in sorted(set(names)))]
    _check(view, file, every, progress)


def _span(name: str, record: TensorRecord, file: FileRecord) -> _Span:
    stop = record.offset + record.size_bytes
    if record.file != file.name or stop > file.size_bytes:
        raise InvalidManifestError(
            f"tensor {name!r} is said to lie in bytes {record.offset} to {stop} of {record.file}, "
            f"not within the {file.size_bytes} bytes of {file.name}"
        )
    return _Span(f"tensor {name!r}", record.offset, stop, record.digest)


def _cover(spans: list[_Span], size_bytes: int) -> bool:
    reached = 0
    for span in sorted(spans, key=lambda s: s.start):
        if span.start > reached:
            return False
        reached = max(reached, span.stop)
    return reached >= size_bytes


def _check(
    view: memoryview, file: FileRecord, spans: list[_Span], progress: Callable[[int], object]
) -> None:
    def is_intact(span: _Span) -> bool:
        algorithm = span.digest.partition(":")[0]
        found = digest_bytes(view[span.start : span.stop], algorithm=algorithm)
        progress(span.stop - span.start)
        return found == span.digest

    big = [span for span in spans if span.stop - span.start >= _BIG_BYTES]
    verdicts: dict[_Span, bool] = {}
    if len(big) > 1:
        # the longest first, so that the last one to finish is a short one
        big.sort(key=lambda span: span.start - span.stop)
        with ThreadPoolExecutor(num_workers(), thread_name_prefix="weightslab-verify") as pool:
            verdicts.update(zip(big, pool.map(is_intact, big), strict=True))
    damaged = [s.label for s in spans if not (verdicts[s] if s in verdicts else is_intact(s))]
    if damaged:
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise DigestMismatchError(
            f"{file.name} is damaged: {', '.join(damaged[:_NAMED])}{more} "
            f"{'do' if len(damaged) > 1 else 'does'} not have the digest that was recorded",
            context={"file": file.name, "damaged": damaged},
        )
