"""The rows of the index: entries as text, sealed with a checksum, and the other way round. Pure."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from struct import pack, unpack
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.values import ParentLink, parse_utc

if TYPE_CHECKING:
    from weightslab.engine.values import FileRecord

__all__ = ["IndexFailedError", "IndexRow"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_INTEGER: Final = (1 << 63) - 1


class IndexFailedError(Exception):
    """The index cannot be used; never seen by users of the catalog.

    Attributes:
        is_damaged: the file is of no use to anybody.
    """

    def __init__(self, message: str, *, is_damaged: bool) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


@dataclass(slots=True)
class IndexRow:
    """What is known of one manifest.

    Attributes:
        stamp: of the file when it was read; empty if it may have changed since without a trace.
        entry: as a listing shows it.
        is_indexed: it is in the index.
        content: bytes of the file while the stamp is empty, to see whether it changed.
    """

    stamp: str
    entry: CheckpointEntry
    is_indexed: bool = False
    content: bytes | None = None


def seal_of(*values: Any) -> int:
    return zlib.crc32("\0".join(map(str, values)).encode("ascii", errors="backslashreplace"))


def check_seal(seal: int, *values: Any) -> None:
    if seal != seal_of(*values):
        raise IndexFailedError("a row does not have its checksum", is_damaged=True)


def values_of(row: IndexRow) -> tuple[Any, ...]:
    """Return the columns of a row; numbers of hostile manifests are cut to what SQLite can hold."""
    entry, name = row.entry, row.entry.name
    moment = None
    if entry.created_at is not None:
        moment = (entry.created_at - _EPOCH) // timedelta(microseconds=1)
    sequence = min(entry.sequence, _MAX_INTEGER)
    values = (name.exp_hash, name.step, name.revision, row.stamp, moment, sequence, _body(entry))
    return *values, seal_of(*values)


def row_of(values: tuple[Any, ...]) -> IndexRow:
    *facts, seal = values
    check_seal(seal, *facts)
    exp_hash, step, revision, stamp, _, _, body = facts
    name = CheckpointName(exp_hash=exp_hash, step=step, revision=revision)
    return IndexRow(stamp=stamp, entry=_entry(name, body), is_indexed=True)


def _body(entry: CheckpointEntry) -> str:
    parent, created_at = entry.parent, entry.created_at
    return json.dumps(
        [
            entry.sequence,
            None if created_at is None else created_at.isoformat(),
            entry.digest,
            entry.metrics,
            None if parent is None else [getattr(parent, name) for name in ParentLink.__slots__],
            entry.size_bytes,
            entry.parts,
            entry.damaged,
        ],
        separators=(",", ":"),
    )


def _entry(name: CheckpointName, body: str) -> CheckpointEntry:
    sequence, created_at, digest, metrics, parent, size_bytes, parts, damaged = json.loads(body)
    link = None
    if parent is not None:
        fields = dict(zip(ParentLink.__slots__, parent, strict=True))
        link = ParentLink(**{**fields, "via": tuple(fields["via"])})
    return CheckpointEntry(
        name=name,
        sequence=sequence,
        created_at=None if created_at is None else parse_utc(created_at),
        digest=digest,
        metrics=metrics,
        parent=link,
        size_bytes=size_bytes,
        parts=tuple(parts),
        damaged=damaged,
    )


def key_of(text: str) -> int:
    """Return 64 bits that stand for a text; who finds something by them compares the text."""
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def content_key(file: FileRecord) -> int:
    """Return what is equal for two files with the same bytes."""
    return key_of(f"{file.digest}/{file.size_bytes}")


def pack_keys(keys: set[int]) -> bytes:
    return pack(f"<{len(keys)}q", *sorted(keys))


def unpack_keys(keys: bytes) -> tuple[int, ...]:
    return unpack(f"<{len(keys) // 8}q", keys)


def record_to_text(entry: ExperimentEntry) -> str:
    """Return an experiment as text."""
    if entry.record is None:
        return json.dumps(entry.damaged)
    record, parts = entry.record, entry.record.components
    return json.dumps(
        {
            "components": [parts.model, parts.config, parts.data, parts.origin],
            "created_at": record.created_at.isoformat(),
            "excluded": record.excluded,
            "weak": record.weak,
            "environment": record.environment,
            "facts": record.facts,
            "changed_from": record.changed_from,
            "facets": record.facets,
        }
    )


def record_from_text(exp_hash: str, text: str) -> ExperimentEntry:
    """Return the experiment that `record_to_text` made a text of."""
    found = json.loads(text)
    if not isinstance(found, dict):
        return ExperimentEntry(exp_hash=exp_hash, damaged=found)
    model, config, data, origin = found["components"]
    record = ExperimentRecord(
        components=Components(model=model, config=config, data=data, origin=origin),
        created_at=parse_utc(found["created_at"]),
        excluded=tuple(found["excluded"]),
        weak=tuple(found["weak"]),
        environment=found["environment"],
        facts=found["facts"],
        changed_from=found["changed_from"],
        facets=tuple(found["facets"]),
    )
    return ExperimentEntry(exp_hash=exp_hash, record=record)
