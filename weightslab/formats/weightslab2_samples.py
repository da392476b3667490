"""The samples of a WeightsLab 2.0 experiment: a JSON file, and mostly a parquet table beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError, FormatError
from weightslab.formats.small_text import Pairs, load_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["Samples", "read_samples"]

_ENDING: Final = "_data_snapshot"
_MAX_ROWS: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of an experiment.

    Attributes:
        active, discarded: UIDs; `active` is None where they are not known.
        why: why they are not known.
    """

    active: Sequence[Any] | None
    discarded: Sequence[Any] = ()
    why: str | None = None


def read_samples(folder: Path, problems: list[tuple[str, str]]) -> Samples:
    """Return the samples that the snapshot in a folder names; what is in the way is told.

    A sample may have several rows, one for each annotation; it is discarded if all of them are.
    """
    path = folder / f"{folder.name}{_ENDING}.json"
    if not path.exists():
        return Samples(None, why="unknown: there is no snapshot of the data")
    name = f"checkpoints/data/{folder.name}/{path.name}"
    try:
        snapshot = load_json(path)
        if not isinstance(snapshot, Pairs):
            raise FormatError(f"{path.name} is not a JSON object")
        rows = _rows(folder, snapshot)
        return _split(rows)
    except (CheckpointError, OSError) as error:
        problems.append((name, str(error)))
        return Samples(None, why=f"unknown: {error}")


def _rows(folder: Path, snapshot: Pairs) -> Iterable[tuple[Any, Any]]:
    """Return (UID, discarded) of each row."""
    if "data" in snapshot:  # earlier versions have no second file
        rows = snapshot["data"]
        if not isinstance(rows, list) or not all(isinstance(row, Pairs) for row in rows):
            raise FormatError("data is not a list of rows")
        return [(row.get("sample_id"), row.get("discarded")) for row in rows]
    name = snapshot.get("data_file")
    if snapshot.get("data_format") != "parquet" or not isinstance(name, str):
        raise FormatError("the snapshot names no table of samples")
    if name != f"{folder.name}{_ENDING}.parquet":
        raise FormatError(f"the table of samples is {name!r:.80}, which is not beside it")
    rows = _read_parquet(folder / name)
    count = snapshot.get("data_rows")
    if isinstance(count, int) and count != len(rows):
        raise FormatError(f"{name} has {len(rows):,} rows, not {count:,}")
    return rows


def _read_parquet(path: Path) -> list[tuple[Any, Any]]:
    from weightslab.engine.errors import MissingExtraError
    from weightslab.formats.held import hold_file

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} needs pyarrow",
            hint="the samples stay unknown; for them, pip install 'weightslab[weightslab2]' and "
            "import into another root",
        ) from error
    if path.exists() and not path.is_file():  # a pipe would never end
        raise FormatError(f"{path.name} is no file")
    with hold_file(path) as held:
        try:
            file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(held.view)))
            if file.metadata.num_rows > _MAX_ROWS:
                raise FormatError(f"{path.name} says it has {file.metadata.num_rows:,} rows")
            table = file.read(["sample_id", "discarded"])
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise FormatError(f"{path.name} cannot be read: {error!s:.200}") from error
    columns = [table.column(name).to_pylist() for name in ("sample_id", "discarded")]
    return list(zip(*columns, strict=True))


def _split(rows: Iterable[tuple[Any, Any]]) -> Samples:
    is_discarded: dict[Any, bool] = {}
    for uid, flag in rows:
        if type(uid) not in (str, int):
            raise FormatError(f"{uid!r:.60} is no sample_id")
        is_discarded[uid] = is_discarded.get(uid, True) and bool(flag)
    return Samples(
        [uid for uid, flag in is_discarded.items() if not flag],
        [uid for uid, flag in is_discarded.items() if flag],
    )
