"""`weightslab log`: what was measured, as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    JsonOption,
    OptionalReference,
    PlotOption,
    RootOption,
    experiment_of,
)
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import inert, number, sparkline

if TYPE_CHECKING:
    from weightslab.engine.root import CheckpointRoot

__all__ = ["log"]

Curves = dict[tuple[str, str], dict[int, float]]
_CURVE_COLUMNS = 24
_NARROW, _NARROW_COLUMNS = 60, 10
_COLUMNS = (
    Column("HASH", least=8, has_mark=False),
    Column("METRIC", least=6),
    Column("CURVE"),
    Column("LAST", is_right=True),
    Column("STEP", is_right=True, rank=1),
    Column("LOWEST", is_right=True, rank=2),
    Column("HIGHEST", is_right=True, rank=3),
    Column("VALUES", is_right=True, rank=4),
)


def log(
    ref: OptionalReference = None,
    metric: Annotated[
        Optional[str],
        typer.Option("--metric", "-m", help="Only this metric."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=0, help="How many experiments; 0 for all.")
    ] = 30,
    plot: PlotOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show metrics as curves: those that were logged, and those of the checkpoints.

    Without REF those of the experiments that logged last.

    \b
    Examples:
      weightslab log
      weightslab log 3f2a --metric loss
      weightslab log 3f2a --plot curves.png
    """
    opened = open_root(root)
    exp_hash = None if ref is None else experiment_of(opened, ref)
    curves = curves_of(opened, exp_hash, metric)
    hashes = list(dict.fromkeys(h for h, _ in reversed(curves)))
    shown = set(hashes[: limit or None])
    curves = {key: curve for key, curve in curves.items() if key[0] in shown}
    if plot is not None:
        from weightslab.cli.plotting import plot_curves

        render.note(f"wrote {plot_curves(curves, plot)}")
    if as_json:
        render.show_json("log", {"root": str(opened.path), "curves": _plain(curves)})
    elif not curves:
        render.note("no metrics")
    elif plot is None:
        _show(curves)
        if len(hashes) > len(shown):
            render.note(f"and {len(hashes) - len(shown):,} more experiments; --limit 0 shows all")


def curves_of(root: CheckpointRoot, exp_hash: str | None, metric: str | None) -> Curves:
    """Return (experiment, metric) -> step -> value; what was logged last of a step counts.

    Metrics of checkpoints fill what was not logged.
    """
    found: Curves = {}
    for record in root.metrics(exp_hash, name=metric):
        for name, value in record.metrics.items():
            found.setdefault((record.exp_hash, name), {})[record.step] = value
    for entry in root.checkpoints(exp_hash):
        for name, value in entry.metrics.items():
            if metric in (None, name):
                curve = found.setdefault((entry.name.exp_hash, name), {})
                curve.setdefault(entry.name.step, value)
    return {key: dict(sorted(curve.items())) for key, curve in found.items()}


def _plain(curves: Curves) -> list[dict[str, Any]]:
    return [
        {"exp_hash": exp_hash, "metric": name, "steps": [*curve], "values": [*curve.values()]}
        for (exp_hash, name), curve in curves.items()
    ]


def _show(curves: Curves) -> None:
    terminal = render.out()
    is_narrow = terminal.width is not None and terminal.width < _NARROW
    room = _NARROW_COLUMNS if is_narrow else _CURVE_COLUMNS
    rows = []
    for (exp_hash, name), curve in curves.items():
        values = [*curve.values()]
        known = [v for v in values if v == v]  # noqa: PLR0124 - NaN is not itself
        rows.append(
            [
                inert(exp_hash),
                inert(name),
                sparkline(values, room, is_unicode=terminal.is_unicode),
                number(values[-1]),
                number([*curve][-1]),
                number(min(known, default=None)),
                number(max(known, default=None)),
                number(len(values)),
            ]
        )
    render.say_table(_COLUMNS, rows)
