"""Listings: lists of entries that can show themselves as rows, a pandas table or HTML.

The rows are made when they are first asked for, of what the root holds then: one definition of the
columns for pandas, notebooks and the command line.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from weightslab.engine.errors import MissingExtraError
from weightslab.engine.repository.consulting import Needs
from weightslab.engine.repository.fact_tables import experiment_number, hash_of_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.consulting import Desk

__all__ = ["CheckpointListing", "ExperimentListing", "Listing"]

T = TypeVar("T")
_FEW: Final = 256  # experiments that are looked at one by one
_CHUNK: Final = 500  # parameters of one statement; SQLite takes 999 at least
_MAX_HTML_ROWS: Final = 60
_MAX_CELL: Final = 80  # characters in HTML


class _Asked(Protocol):
    catalog: Catalog


class Listing(list[T]):
    """Entries of a root, with the columns of a table on request."""

    columns: tuple[str, ...] = ()

    def __init__(self, root: _Asked, entries: Iterable[T]) -> None:
        super().__init__(entries)
        self._root = root

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict of plain JSON values for each entry; `columns` names the keys.

        `metrics` is a dict; what is no number of JSON is the text `nan`, `inf` or `-inf` in it.
        """
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a column for each metric, `metrics.loss`; times are aware.

        Raises: MissingExtraError without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("a table needs pandas: pip install pandas") from error
        rows = self.rows()
        names = sorted({name for row in rows for name in row["metrics"]})
        flat = [
            {k: v for k, v in row.items() if k != "metrics"}
            | {f"metrics.{n}": _to_float(row["metrics"].get(n)) for n in names}
            for row in rows
        ]
        columns = [c for c in self.columns if c != "metrics"] + [f"metrics.{n}" for n in names]
        table = pd.DataFrame(flat, columns=columns)
        table["created_at"] = pd.to_datetime(table["created_at"], utc=True, format="ISO8601")
        return table

    def _repr_html_(self) -> str:
        """Return a table for notebooks; text from the root is shown, never obeyed."""
        head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in self.columns)
        shown = type(self)(self._root, self[:_MAX_HTML_ROWS]).rows()
        lines = (
            "<tr>" + "".join(f"<td>{_cell(row[column])}</td>" for column in self.columns) + "</tr>"
            for row in shown
        )
        more = len(self) - len(shown)
        foot = f"<p>and {more:,} more</p>" if more else ""
        body = "\n".join(lines)
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{foot}"


class ExperimentListing(Listing["ExperimentEntry"]):
    """Experiments; step and metrics in their rows are those of the newest readable checkpoint."""

    columns = (
        "hash",
        "name",
        "tags",
        "created_at",
        "num_checkpoints",
        "last_step",
        "size_bytes",
        "metrics",
        "model_class",
        "num_parameters",
        "num_samples",
        "pinned",
        "damaged",
    )

    def rows(self) -> list[dict[str, Any]]:
        # docstring inherited
        facts = _look_up(self._root, [entry.exp_hash for entry in self])
        return [_experiment_row(entry, facts[entry.exp_hash]) for entry in self]


class CheckpointListing(Listing["CheckpointEntry"]):
    """Checkpoints; name, tags and pins in their rows may be those of their experiment."""

    columns = (
        "hash",
        "name",
        "step",
        "revision",
        "sequence",
        "created_at",
        "size_bytes",
        "metrics",
        "tags",
        "parts",
        "parent",
        "pinned",
        "damaged",
    )

    def rows(self) -> list[dict[str, Any]]:
        # docstring inherited
        facts = _look_up(self._root, [e.name.exp_hash for e in self], checkpoints=False)
        return [_checkpoint_row(entry, facts[entry.name.exp_hash]) for entry in self]


# ---------------------------------------------------------------- facts about experiments
@dataclass(slots=True)
class _Facts:
    num_checkpoints: int = 0
    num_damaged: int = 0
    size_bytes: int = 0
    newest: CheckpointEntry | None = None
    barred: str | None = None
    said: list[tuple[str, int | None, int | None, str]] = field(default_factory=list)

    def texts(self, kind: str) -> list[str]:
        """Return what was said of a kind, each text once."""
        return list(dict.fromkeys(text for k, _, _, text in self.said if k == kind))

    def about(self, kind: str, step: int, revision: int) -> list[str]:
        """Return what was said of a kind about a checkpoint."""
        return list(
            dict.fromkeys(
                text
                for k, s, r, text in self.said
                if k == kind and s in (None, step) and r in (None, revision)
            )
        )

    @property
    def name(self) -> str | None:
        """The name of the experiment."""
        return next(iter(self.texts("name")), None)


def _look_up(
    root: _Asked, exp_hashes: Sequence[str], *, checkpoints: bool = True
) -> dict[str, _Facts]:
    hashes = tuple(dict.fromkeys(exp_hashes))
    if not hashes:
        return {}
    needs = Needs(
        exp_hashes=hashes if len(hashes) <= _FEW else None, checkpoints=checkpoints, notes=True
    )

    def question(desk: Desk) -> dict[str, _Facts]:
        found = {exp_hash: _Facts(barred=desk.barred.get(exp_hash)) for exp_hash in hashes}
        for chunk in _chunks([experiment_number(h) for h in hashes]):
            _read_said(desk, found, chunk)
            if checkpoints:
                _read_checkpoints(desk, found, chunk)
        return found

    return root.catalog.consult(needs, question)


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), _CHUNK):
        yield numbers[start : start + _CHUNK]


def _marks(numbers: Sequence[int]) -> str:
    return ",".join("?" * len(numbers))


def _read_said(desk: Desk, found: dict[str, _Facts], numbers: Sequence[int]) -> None:
    rows = desk.run(
        "SELECT experiment, kind, step, revision, text FROM said"  # noqa: S608 - marks alone
        f" WHERE experiment IN ({_marks(numbers)}) ORDER BY rowid",
        numbers,
    )
    for experiment, *said in rows:
        found[hash_of_number(experiment)].said.append(tuple(said))


def _read_checkpoints(desk: Desk, found: dict[str, _Facts], numbers: Sequence[int]) -> None:
    rows = desk.run(
        "SELECT experiment, count(*), count(*) - count(moment), total(size),"  # noqa: S608 - as above
        " (SELECT n.checkpoint FROM facts n WHERE n.experiment = f.experiment"
        " AND n.moment IS NOT NULL ORDER BY n.sequence DESC, n.moment DESC, n.step DESC,"
        f" n.revision DESC LIMIT 1) FROM facts f WHERE experiment IN ({_marks(numbers)})"
        " GROUP BY experiment",
        numbers,
    )
    newest = [row[4] for row in rows if row[4] is not None]
    entries = dict(zip(newest, desk.checkpoints(newest), strict=True))
    for experiment, count, damaged, size, checkpoint in rows:
        facts = found[hash_of_number(experiment)]
        facts.num_checkpoints, facts.num_damaged, facts.size_bytes = count, damaged, int(size)
        facts.newest = entries.get(checkpoint)


# ---------------------------------------------------------------- rows
def _experiment_row(entry: ExperimentEntry, facts: _Facts) -> dict[str, Any]:
    record, newest = entry.record, facts.newest
    told = {} if record is None else record.facts
    return {
        "hash": entry.exp_hash,
        "name": facts.name,
        "tags": facts.texts("tag"),
        "created_at": None if record is None else record.created_at.isoformat(),
        "num_checkpoints": facts.num_checkpoints,
        "last_step": None if newest is None else newest.name.step,
        "size_bytes": facts.size_bytes,
        "metrics": {} if newest is None else _plain_metrics(newest.metrics),
        "model_class": told.get("model_class"),
        "num_parameters": told.get("num_parameters"),
        "num_samples": told.get("num_samples"),
        "pinned": bool(facts.texts("pin")),
        "damaged": _damage(entry, facts),
    }


def _damage(entry: ExperimentEntry, facts: _Facts) -> str | None:
    """Return what is wrong with an experiment or its checkpoints."""
    if entry.damaged is not None:
        return entry.damaged
    if facts.barred is not None:
        return f"its checkpoints cannot be listed: {facts.barred}"
    if facts.num_damaged:
        return f"{facts.num_damaged} damaged checkpoint{'' if facts.num_damaged == 1 else 's'}"
    return None


def _checkpoint_row(entry: CheckpointEntry, facts: _Facts) -> dict[str, Any]:
    name, parent = entry.name, entry.parent
    return {
        "hash": name.exp_hash,
        "name": facts.name,
        "step": name.step,
        "revision": name.revision,
        "sequence": entry.sequence,
        "created_at": None if entry.created_at is None else entry.created_at.isoformat(),
        "size_bytes": entry.size_bytes,
        "metrics": _plain_metrics(entry.metrics),
        "tags": facts.about("tag", name.step, name.revision),
        "parts": list(entry.parts),
        "parent": None if parent is None or parent.exp_hash is None else _parent_text(parent),
        "pinned": bool(facts.about("pin", name.step, name.revision)),
        "damaged": entry.damaged,
    }


def _parent_text(parent: Any) -> str:
    suffix = "" if parent.revision in (None, 1) else f".r{parent.revision}"
    return f"{parent.exp_hash}@{parent.step}{suffix}"


def _plain_metrics(metrics: dict[str, float]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in sorted(metrics.items())}


def _plain(value: float) -> float | str:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _to_float(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if isinstance(value, str) else value


# ---------------------------------------------------------------- HTML
def _cell(value: Any) -> str:
    if value is None or value is False or value in ([], {}):
        return ""
    if isinstance(value, dict):
        return "<br>".join(f"{_shown(name)}: {_number(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _shown("yes" if value is True else str(value))
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**18 else f"{value:.6g}"


def _shown(text: str) -> str:
    inert = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _MAX_CELL + 1])
    return html.escape(inert if len(inert) <= _MAX_CELL else inert[: _MAX_CELL - 3] + "...")
