"""`weightslab ls`: the experiments of a root, or the checkpoints of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    JsonOption,
    OptionalReference,
    OrderOption,
    RootOption,
    WhereOption,
    experiment_of,
)
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import inert, number, size, when

if TYPE_CHECKING:
    from weightslab.engine.query.listing import Listing
    from weightslab.engine.root import CheckpointRoot

__all__ = ["ls"]

_EXPERIMENTS = (
    Column("HASH", least=8, has_mark=False),
    Column("NAME", least=8, rank=2),
    Column("CREATED", rank=4),
    Column("CKPTS", is_right=True, rank=1),
    Column("STEP", is_right=True),
    Column("SAMPLES", is_right=True, rank=6),
    Column("SIZE", is_right=True, rank=3),
    Column("MODEL", least=8, rank=7),
    Column("TAGS", least=6, rank=5),
    Column("", least=8),
)
_CHECKPOINTS = (
    Column("CHECKPOINT", least=8, has_mark=False),
    Column("CREATED", rank=4),
    Column("METRICS", least=12, rank=1),
    Column("SIZE", is_right=True, rank=3),
    Column("FROM", least=12, has_mark=False, rank=5),
    Column("TAGS", least=6, rank=6),
    Column("", least=8),
)


def ls(
    ref: OptionalReference = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", "-c", help="Checkpoints, of the whole root.")
    ] = False,
    where: WhereOption = None,
    order: OrderOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=0, help="How many at most; 0 for all.")
    ] = 30,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """List experiments, or the checkpoints of one; the newest first.

    What is damaged is listed and marked.

    \b
    Examples:
      weightslab ls
      weightslab ls 3f2a
      weightslab ls --where 'config.lr < 0.01 and tag = paper' --order name
      weightslab ls --checkpoints --where 'metric.loss < 0.1' --order metric.loss
      weightslab ls --limit 0 --json
    """
    opened = open_root(root)
    if ref is None and not checkpoints:
        found = opened.experiments(where, order=order or "-created", limit=limit or None)
        total = _total(opened, found, limit, kind="experiments", where=where)
        _show(opened, "experiments", found, total, as_json=as_json)
        return
    exp_hash = None if ref is None else experiment_of(opened, ref)
    listed = opened.checkpoints(
        exp_hash, where=where, order=order or "-created", limit=limit or None
    )
    total = _total(opened, listed, limit, kind="checkpoints", where=where, exp_hash=exp_hash)
    _show(opened, "checkpoints", listed, total, as_json=as_json)


def _total(
    root: CheckpointRoot, found: Listing[Any], limit: int, *, kind: str, **about: str | None
) -> int:
    """Return how many there are, those beyond the limit too."""
    if not limit or len(found) < limit:
        return len(found)
    from weightslab.engine.query.asking import count

    return count(root, kind, **about)


def _show(
    root: CheckpointRoot, kind: str, found: Listing[Any], total: int, *, as_json: bool
) -> None:
    rows = found.rows()
    if as_json:
        content = {"root": str(root.path), "total": total, kind: rows}
        render.show_json("ls", content)
        return
    if not rows:
        render.note(f"no {kind} in {root.path}")
        return
    columns, line = (
        (_EXPERIMENTS, _experiment) if kind == "experiments" else (_CHECKPOINTS, _checkpoint)
    )
    styles = ["red" if row["damaged"] else "" for row in rows]
    render.say_table(columns, [line(row) for row in rows], styles=lambda at: styles[at])
    if total > len(rows):
        render.note(f"and {total - len(rows):,} more; --limit 0 lists all")


def _experiment(row: dict[str, Any]) -> list[str]:
    return [
        row["hash"],
        inert(row["name"] or ""),
        when(row["created_at"]),
        number(row["num_checkpoints"]),
        number(row["last_step"]),
        number(row["num_samples"]),
        size(row["size_bytes"]),
        inert(row["model_class"] or ""),
        _tags(row),
        _damage(row),
    ]


def _checkpoint(row: dict[str, Any]) -> list[str]:
    return [
        reference_of(row["hash"], row["step"], row["revision"]),
        when(row["created_at"]),
        metrics_text(row["metrics"]),
        size(row["size_bytes"]),
        inert(row.get("parent") or ""),
        _tags(row),
        _damage(row),
    ]


def reference_of(exp_hash: str, step: int, revision: int) -> str:
    """Return the word that names a checkpoint."""
    return f"{exp_hash}@{step}" + (f".r{revision}" if revision > 1 else "")


def metrics_text(metrics: dict[str, Any]) -> str:
    """Return metrics in one line."""
    return " ".join(f"{inert(name)}={number(value)}" for name, value in sorted(metrics.items()))


def _tags(row: dict[str, Any]) -> str:
    return " ".join([*map(inert, row["tags"]), *["(pinned)"] * bool(row["pinned"])])


def _damage(row: dict[str, Any]) -> str:
    return f"damaged: {inert(row['damaged'])}" if row["damaged"] else ""
