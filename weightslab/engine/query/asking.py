# ruff: noqa: S608 - no text of a filter gets into a statement: values are bound, names are constants
"""Asking: filters, orders and limits over a root; the verbs of `CheckpointRoot` that search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from weightslab.engine.errors import FilterError
from weightslab.engine.query.fields import fields_of, resolve, unknown_key
from weightslab.engine.query.language import parse_filter, parse_order
from weightslab.engine.query.listing import (
    CheckpointListing,
    ExperimentListing,
    Listing,
)
from weightslab.engine.query.sql import CHECKPOINTS, EXPERIMENTS, Compiler, Sql, joined
from weightslab.engine.repository.consulting import Needs
from weightslab.engine.repository.fact_tables import experiment_number, to_text
from weightslab.engine.repository.index_rows import IndexFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from weightslab.engine.query.fields import Known
    from weightslab.engine.query.nodes import Field
    from weightslab.engine.query.sql import Scope
    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.consulting import Desk

__all__ = ["best", "checkpoints", "experiments", "latest"]

_OLDEST_FIRST: Final = "e.moment IS NULL, e.moment, e.exp_hash"
_IN_ORDER: Final = f"{_OLDEST_FIRST}, f.sequence, coalesce(f.moment, 0), f.step, f.revision"
_NEWEST: Final = "f.moment DESC, f.sequence DESC, f.experiment DESC, f.step DESC, f.revision DESC"
_LAST: Final = "f.sequence DESC, f.moment DESC, f.step DESC, f.revision DESC"
# without the experiment: 200,000 look-ups of it take as long as the rest of a question
_YOUNGEST: Final = "f.moment DESC, f.sequence DESC, f.experiment, f.step, f.revision"
_OF_CHECKPOINTS: Final = frozenset(
    {"metric", "step", "revision", "sequence", "size", "checkpoints", "damaged"}
)
_OF_NOTES: Final = frozenset({"name", "tag", "note", "pinned"})
# what SQLite says of expressions beyond its limits, which differ between builds
_TOO_DEEP: Final = ("parser stack overflow", "too large", "too many SQL variables")
_BEYOND: Final = 2.0**63  # above it numbers lie in the index as floats


class Asked(Protocol):
    """What asking needs of a root."""

    catalog: Catalog
    clock: Callable[[], datetime]

    def get_hash(self, prefix: str) -> str:
        """Return the full hash that starts with `prefix`."""
        ...


# ---------------------------------------------------------------- verbs
def experiments(
    root: Asked, where: str | None = None, *, order: str | None = None, limit: int | None = None
) -> Listing[ExperimentEntry]:
    """Return experiments: all, oldest first and damaged ones last, or those that a filter wants.

    Facts of checkpoints (`metric.loss`, `step`) are those of the newest readable one here.

    Args:
        where: a filter, such as `"config.optimizer.lr < 0.01 and tag = paper"`; see the guide.
        order: what to order by, such as `"-created"` or `"model.parameters, -metric.loss"`; what
            is missing comes last.
        limit: how many at most.
    Raises: FilterError.
    """
    _check_limit(limit)
    if where is None and order is None and limit is None:
        return ExperimentListing(root, root.catalog.experiments())
    search = _Search(root, EXPERIMENTS, where=where, order=order, limit=limit)

    def pick(desk: Desk) -> list[ExperimentEntry]:
        rows = search.select(desk, "e.exp_hash", _OLDEST_FIRST)
        return desk.experiments([exp_hash for (exp_hash,) in rows])

    return ExperimentListing(root, search.consult(pick))


def checkpoints(
    root: Asked,
    exp_hash: str | None = None,
    *,
    where: str | None = None,
    order: str | None = None,
    limit: int | None = None,
) -> Listing[CheckpointEntry]:
    """Return checkpoints of one experiment, or of all, in the order of their commit.

    Damaged ones come first within their experiment and carry `damaged`.

    Args:
        exp_hash: only this experiment; hash or prefix.
        where: a filter, such as `"metric.loss < 0.1 and step >= 1000"`; see the guide.
        order: what to order by, such as `"metric.loss"` or `"-created"`; of equals the newer comes
            first, and what is missing last.
        limit: how many at most.
    Raises: ExperimentNotFoundError; FilterError.
    """
    _check_limit(limit)
    full = None if exp_hash is None else root.get_hash(exp_hash)
    if where is None and order is None and limit is None:
        hashes = [e.exp_hash for e in root.catalog.experiments()] if full is None else [full]
        found = [entry for h in hashes for entry in root.catalog.checkpoints(h)]
        return CheckpointListing(root, found)
    search = _Search(root, CHECKPOINTS, where=where, order=order, limit=limit, exp_hash=full)

    def pick(desk: Desk) -> list[CheckpointEntry]:
        rows = search.select(desk, "f.checkpoint", _IN_ORDER if order is None else _YOUNGEST)
        return desk.checkpoints([number for (number,) in rows])

    return CheckpointListing(root, search.consult(pick))


def latest(
    root: Asked, exp_hash: str | None = None, *, where: str | None = None
) -> CheckpointEntry | None:
    """Return the newest checkpoint with a readable manifest; None if there is none.

    Of one experiment: the one committed last (highest sequence). Of the whole root: the one
    with the highest creation time.

    Args:
        exp_hash: only this experiment; hash or prefix.
        where: only what this filter wants.
    Raises: ExperimentNotFoundError; FilterError.
    """
    full = None if exp_hash is None else root.get_hash(exp_hash)
    if where is None:
        return root.catalog.latest(full)
    search = _Search(root, CHECKPOINTS, where=where, exp_hash=full, limit=1)

    def pick(desk: Desk) -> list[CheckpointEntry]:
        age = _NEWEST if full is None else _LAST
        rows = search.select(desk, "f.checkpoint", age, Sql("f.moment IS NOT NULL"))
        return desk.checkpoints([number for (number,) in rows])

    return next(iter(search.consult(pick)), None)


def best(
    root: Asked,
    metric: str,
    *,
    mode: str = "min",
    exp_hash: str | None = None,
    where: str | None = None,
) -> CheckpointEntry | None:
    """Return the checkpoint with the best value of `metric`; None if none has it.

    Checkpoints without the metric, or with NaN, do not take part; of equals the newer wins.

    Args:
        metric: name given to `save_model_checkpoint(metrics=...)`.
        mode: `min` or `max`.
        exp_hash: only this experiment.
        where: only what this filter wants.
    Raises: ExperimentNotFoundError; FilterError.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is 'min' or 'max', not {mode!r}")
    full = None if exp_hash is None else root.get_hash(exp_hash)
    search = _Search(root, CHECKPOINTS, where=where, exp_hash=full, may_drive=False)
    found: CheckpointEntry | None = search.consult(lambda d: _best(search, d, metric, mode))
    return found


def count(root: Asked, kind: str, *, where: str | None = None, exp_hash: str | None = None) -> int:
    """Return how many `experiments` or `checkpoints` a filter wants, without reading them.

    Args:
        root: the root.
        kind: `experiments` or `checkpoints`.
        where: a filter; None for all.
        exp_hash: only this experiment; hash or prefix.
    Raises: ExperimentNotFoundError; FilterError.
    """
    scope = {"experiments": EXPERIMENTS, "checkpoints": CHECKPOINTS}[kind]
    full = None if exp_hash is None else root.get_hash(exp_hash)
    search = _Search(root, scope, where=where, exp_hash=full)
    found: int = search.consult(lambda desk: search.select(desk, "count(*)", "1")[0][0])
    return found


def _best(search: _Search, desk: Desk, metric: str, mode: str) -> CheckpointEntry | None:
    direction = "ASC" if mode == "min" else "DESC"
    rows = CHECKPOINTS.drive
    named = Sql(
        "m.name = (SELECT id FROM metric_names WHERE name = ?) AND m.value IS NOT NULL",
        [to_text(metric)],
    )
    age = f"m.value {direction}, {_NEWEST}"
    found = search.select(desk, "f.checkpoint, m.value", age, named, rows=rows, limit=1)
    if found and abs(found[0][1]) >= _BEYOND:  # integers that are one float in the index
        named.text += " AND m.value = ?"
        named.values.append(found[0][1])
        found = search.select(desk, "f.checkpoint", _NEWEST, named, rows=rows)
    entries = desk.checkpoints([row[0] for row in found])
    sign = -1 if mode == "min" else 1  # an int: a metric may be an int beyond every float
    return max(
        entries, key=lambda e: (sign * e.metrics[metric], e.created_at, e.sequence), default=None
    )


def _check_limit(limit: int | None) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit is an int, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit is 0 or more, not {limit}")


# ---------------------------------------------------------------- one search
class _UnknownHereError(Exception):
    """Something is not in the index, which was brought up to one experiment only."""


@dataclass(slots=True)
class _Used:
    """A field that has to exist somewhere in the root."""

    known: Known
    field: Field
    text: str
    what: str


class _Search:
    """A filter, an order and a limit, ready to be asked."""

    def __init__(
        self,
        root: Asked,
        scope: Scope,
        *,
        where: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        exp_hash: str | None = None,
        may_drive: bool = True,
    ) -> None:
        self._root, self._scope, self._limit, self._exp_hash = root, scope, limit, exp_hash
        self._condition, self._order, self._where = Sql("1"), Sql(""), where or ""
        used: list[_Used] = []
        now, driver, self._rows = root.clock(), None, scope.rows
        if where is not None:
            tree = parse_filter(where)
            compiler = Compiler(scope, where, now)
            self._condition = compiler.condition(tree, may_drive=may_drive)
            driver, self._rows = compiler.driver, compiler.rows
            used += [_Used(resolve(f, where), f, where, "filter") for f in fields_of(tree)]
        if order is not None:
            keys = parse_order(order)
            self._order = Compiler(scope, order, now).order(keys, driver)
            fields = [key.field for key in keys]
            used += [_Used(resolve(f, order, what="order"), f, order, "order") for f in fields]
        self._to_check = [u for u in used if u.known.kind in ("metric", "config")]
        self._names = {u.known.name for u in used}

    def _needs(self, exp_hash: str | None) -> Needs:
        return Needs(
            exp_hashes=None if exp_hash is None else (exp_hash,),
            checkpoints=self._has_checkpoints,
            configs="config" in self._names,
            notes=not _OF_NOTES.isdisjoint(self._names),
        )

    @property
    def _has_checkpoints(self) -> bool:
        return self._scope is CHECKPOINTS or not _OF_CHECKPOINTS.isdisjoint(self._names)

    def consult(self, pick: Callable[[Desk], Any]) -> Any:
        """Return what `pick` answers; metrics and config keys that nothing has are an error."""
        catalog = self._root.catalog

        def ask(desk: Desk) -> Any:
            self._check_keys(desk, is_whole=self._exp_hash is None)
            return pick(desk)

        try:
            return catalog.consult(self._needs(self._exp_hash), ask)
        except _UnknownHereError:
            catalog.consult(self._needs(None), lambda desk: self._check_keys(desk, is_whole=True))
            return catalog.consult(self._needs(self._exp_hash), pick)

    def _check_keys(self, desk: Desk, *, is_whole: bool) -> None:
        for used in self._to_check:
            values, names, column = _TABLES[used.known.kind]
            where = f"(SELECT id FROM {names} WHERE {column} = ?)"
            key = "name" if values == "metrics" else "key"
            if desk.run(f"SELECT 1 FROM {values} WHERE {key} = {where} LIMIT 1", [used.known.key]):
                continue
            if not is_whole:
                raise _UnknownHereError
            some = f"SELECT 1 FROM {values} v WHERE v.{key} = n.id"
            found = desk.run(f"SELECT {column} FROM {names} n WHERE EXISTS ({some}) LIMIT 5000")
            raise unknown_key(
                used.known, used.field, used.text, [name for (name,) in found], what=used.what
            )

    def select(
        self,
        desk: Desk,
        columns: str,
        order: str,
        extra: Sql | None = None,
        *,
        rows: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return columns of the rows that match.

        Args:
            desk: the index.
            columns: what to return.
            order: what comes after the order that was asked for.
            extra: a further condition.
            rows: FROM clause, in place of that of the scope.
            limit: in place of that which was asked for.
        """
        parts = [self._condition] + ([extra] if extra is not None else [])
        row = "f" if self._scope is CHECKPOINTS else "e"
        if self._exp_hash is not None:
            parts.append(Sql(f"{row}.experiment = ?", [experiment_number(self._exp_hash)]))
        condition = joined(parts, is_every=True)
        if rows is None:
            rows = self._rows if self._has_checkpoints else "experiments e"
        keys = ", ".join(filter(None, [self._order.text, order]))
        limit = self._limit if limit is None else limit
        values = [*condition.values, *self._order.values, -1 if limit is None else limit]
        text = f"SELECT {columns} FROM {rows} WHERE {condition.text} ORDER BY {keys} LIMIT ?"
        try:
            return desk.run(text, values)
        except IndexFailedError as error:
            if not any(words in str(error) for words in _TOO_DEEP):
                raise
            raise FilterError(
                "the filter is nested too deeply", text=self._where, position=0
            ) from error


_TABLES: Final = {
    "metric": ("metrics", "metric_names", "name"),
    "config": ("config_values", "config_keys", "path"),
}
