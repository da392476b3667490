"""Fact tables: what filters ask about, in columns of the index. Derived from rows and small files.

    facts             one row a checkpoint; goes with its row in `checkpoints`
    metrics           value of a metric in a checkpoint; NULL stands for NaN
    experiments       one row an experiment, with the stamp of its record
    config_values     the newest config of an experiment, flat; NULL stands for NaN, null, a container
    said              names, notes, tags and pins that stand
    sources           the folder that the last two were read from: its stamp at that time, and what
                      tells one state of its files from another

An experiment is its hash as a number here. Nothing of it is believed more than the rest of the index:
what is offered is proven by stamps.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.notes import ExperimentNotes

__all__ = ["FACT_SCHEMA", "experiment_number", "flat_config", "join_path"]

FACT_SCHEMA: Final = """
CREATE TABLE facts (
    checkpoint INTEGER PRIMARY KEY, experiment INTEGER NOT NULL, step INTEGER NOT NULL,
    revision INTEGER NOT NULL, sequence INTEGER NOT NULL, moment INTEGER, size INTEGER NOT NULL
);
CREATE INDEX facts_of ON facts (experiment, sequence, moment, step, revision, size);
CREATE TABLE metric_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE metrics (
    name INTEGER, checkpoint INTEGER, value, PRIMARY KEY (name, checkpoint)
) WITHOUT ROWID;
CREATE TABLE experiments (
    experiment INTEGER PRIMARY KEY, exp_hash TEXT NOT NULL, stamp TEXT NOT NULL, moment INTEGER,
    model TEXT, config TEXT, data TEXT, class TEXT, parameters INTEGER, samples INTEGER,
    damaged INTEGER NOT NULL
);
CREATE TABLE sources (
    kind TEXT, experiment INTEGER, stamp TEXT NOT NULL, files TEXT NOT NULL,
    PRIMARY KEY (kind, experiment)
) WITHOUT ROWID;
CREATE TABLE config_keys (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE config_values (
    key INTEGER, experiment INTEGER, kind TEXT NOT NULL, value, PRIMARY KEY (key, experiment)
) WITHOUT ROWID;
CREATE INDEX config_of ON config_values (experiment);
CREATE TABLE said (
    experiment INTEGER NOT NULL, kind TEXT NOT NULL, step INTEGER, revision INTEGER, text TEXT NOT NULL
);
CREATE INDEX said_about ON said (experiment, kind);
CREATE INDEX said_words ON said (kind, text);
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_INTEGER: Final = (1 << 63) - 1
_HALF: Final = 1 << 63
_MAX_DEPTH: Final = 250  # above the depth of every config that can be read


# ---------------------------------------------------------------- values
def experiment_number(exp_hash: str) -> int:
    """Return the hash of an experiment as a number that SQLite can hold."""
    return int(exp_hash, 16) - _HALF


def hash_of_number(number: int) -> str:
    """Return the hash that `experiment_number` made a number of."""
    return f"{number + _HALF:016x}"


def to_microseconds(moment: datetime) -> int:
    """Return a time as whole microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def to_number(value: float) -> float | None:
    """Return a number as the index holds it; None for NaN, a float for what is beyond 64 bits."""
    if isinstance(value, int) and not -_HALF <= value <= _MAX_INTEGER:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return None if value != value else value  # noqa: PLR0124 - NaN


def to_text(text: str) -> str:
    """Return a text as the index holds it: halves of surrogate pairs are written out."""
    if text.isascii():
        return text
    return text.encode("utf-8", errors="backslashreplace").decode()


def join_path(segments: Iterable[str]) -> str:
    """Return the segments of a config key as one text, with dots between them."""
    return ".".join(to_text(s).replace("\\", "\\\\").replace(".", "\\.") for s in segments)


def flat_config(plain: Mapping[Any, Any]) -> dict[str, tuple[str, Any]]:
    """Return path -> (kind, value) of a config and everything in it.

    Kinds: `n` number, `s` text, `b` true or false, `0` null, `m` a mapping or list with values below
    it, whose keys are its indices.
    """
    return dict(_leaves(plain, ()))


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, Any]]]:
    if path:
        yield join_path(path), _typed(value)
    if isinstance(value, (dict, list)) and len(path) < _MAX_DEPTH:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _leaves(inner, (*path, key if isinstance(key, str) else _key_text(key)))


def _key_text(key: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[key] if key is None or isinstance(key, bool) else str(key)


def _typed(value: Any) -> tuple[str, Any]:
    if isinstance(value, (dict, list)):
        return "m", None
    if value is None:
        return "0", None
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, (int, float)):
        return "n", to_number(value)
    return "s", to_text(str(value))


# ---------------------------------------------------------------- checkpoints
def put_facts(index: Index, checkpoint: int, entry: CheckpointEntry) -> None:
    """Write what filters ask about a checkpoint; its row has just been written."""
    name = entry.name
    index.run(
        "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)",
        checkpoint,
        experiment_number(name.exp_hash),
        name.step,
        name.revision,
        min(entry.sequence, _MAX_INTEGER),
        None if entry.created_at is None else to_microseconds(entry.created_at),
        min(entry.size_bytes, _MAX_INTEGER),
    )
    values = {to_text(metric): to_number(value) for metric, value in entry.metrics.items()}
    names = ((metric,) for metric in values)
    index.run_many("INSERT OR IGNORE INTO metric_names (name) VALUES (?)", names)
    index.run_many(
        "INSERT OR REPLACE INTO metrics SELECT id, ?, ? FROM metric_names WHERE name = ?",
        ((checkpoint, value, metric) for metric, value in values.items()),
    )


def remove_facts(index: Index, checkpoint: int) -> None:
    """Remove what `put_facts` wrote."""
    index.run("DELETE FROM facts WHERE checkpoint = ?", checkpoint)
    index.run(  # a search for each name, as nothing else finds them by checkpoint
        "DELETE FROM metrics WHERE name IN (SELECT id FROM metric_names) AND checkpoint = ?",
        checkpoint,
    )


# ---------------------------------------------------------------- experiments
def put_experiment(index: Index, entry: ExperimentEntry, stamp: str) -> None:
    """Write what filters ask about an experiment; its record had this stamp."""
    record = entry.record
    parts = None if record is None else record.components
    facts = {} if record is None else record.facts
    index.run(
        "INSERT OR REPLACE INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        experiment_number(entry.exp_hash),
        entry.exp_hash,
        stamp,
        None if record is None else to_microseconds(record.created_at),
        *((None,) * 3 if parts is None else map(_digits, (parts.model, parts.config, parts.data))),
        _text(facts.get("model_class")),
        _count(facts.get("num_parameters")),
        _count(facts.get("num_samples")),
        int(record is None),
    )


def _text(value: Any) -> str | None:
    return to_text(value) if isinstance(value, str) else None


def _digits(digest: str | None) -> str | None:
    """Return the hex digits of a digest, by which people know it."""
    return digest.rpartition(":")[2] if isinstance(digest, str) else None


def _count(value: Any) -> int | None:
    return min(value, _MAX_INTEGER) if type(value) is int and value >= 0 else None


def put_config(
    index: Index, exp_hash: str, source: tuple[str, str], values: Mapping[str, tuple[str, Any]]
) -> None:
    """Write the newest config of an experiment; `source` are stamps of its folder and files."""
    number = experiment_number(exp_hash)
    index.run("DELETE FROM config_values WHERE experiment = ?", number)
    index.run_many("INSERT OR IGNORE INTO config_keys (path) VALUES (?)", ((p,) for p in values))
    index.run_many(
        "INSERT OR REPLACE INTO config_values SELECT id, ?, ?, ? FROM config_keys WHERE path = ?",
        ((number, kind, value, path) for path, (kind, value) in values.items()),
    )
    index.run("INSERT OR REPLACE INTO sources VALUES ('config', ?, ?, ?)", number, *source)


def put_notes(index: Index, notes: ExperimentNotes, source: tuple[str, str]) -> None:
    """Write what was said about an experiment; `source` are stamps of its folder and files."""
    number = experiment_number(notes.exp_hash)
    rows = [
        (number, note.kind, note.step, note.revision, to_text(note.text))
        for note in (*notes.notes, *notes.tags, *notes.pins)
    ]
    if notes.name is not None:
        rows.append((number, "name", None, None, to_text(notes.name)))
    if not notes.is_certain:  # what cannot be read may be a pin: all of it counts as pinned
        rows.append((number, "pin", None, None, ""))
    index.run("DELETE FROM said WHERE experiment = ?", number)
    index.run_many(
        "INSERT INTO said VALUES (?, ?, ?, ?, ?)",
        (row for row in rows if all(n is None or n <= _MAX_INTEGER for n in row[2:4])),
    )
    index.run("INSERT OR REPLACE INTO sources VALUES ('notes', ?, ?, ?)", number, *source)


def forget_facts(index: Index, exp_hash: str) -> None:
    """Remove what is known of an experiment besides its checkpoints."""
    number = experiment_number(exp_hash)
    for table in ("experiments", "sources", "config_values", "said"):
        index.run(f"DELETE FROM {table} WHERE experiment = ?", number)  # noqa: S608 - four constants
