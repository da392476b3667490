"""`weightslab diff`: what differs between experiments or checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    JsonOption,
    PlotOption,
    ReferencesArgument,
    RootOption,
)
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import cut, inert, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightslab.cli.render import Terminal
    from weightslab.engine.comparing.results import Comparison, ModuleDiff, WeightsDiff

__all__ = ["diff"]

_FEWEST = 2
_BAR_COLUMNS = 12
_MAX_MODULES = 40
_COLUMNS = (
    Column("MODULE", least=12),
    Column("RELATIVE"),
    Column("CHANGE", is_right=True),
    Column("COSINE", is_right=True, rank=2),
    Column("MAX", is_right=True, rank=3),
    Column("CHANGED", is_right=True, rank=1),
    Column("", rank=0),
)


def diff(
    refs: ReferencesArgument,
    weights: Annotated[
        bool, typer.Option("--weights", help="Compare the tensors, too, module by module.")
    ] = False,
    tensors: Annotated[
        Optional[list[str]],
        typer.Option(
            "--tensors", metavar="GLOB", help="Only tensors with such names; may be repeated."
        ),
    ] = None,
    plot: PlotOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare experiments or checkpoints: model, config, samples, metrics, environment, weights.

    A hash alone is the experiment with its newest checkpoint.

    \b
    Examples:
      weightslab diff 3f2a 77b0
      weightslab diff 3f2a@100 3f2a@200 --weights
      weightslab diff 3f2a@100 latest --weights --tensors 'encoder.*' --plot change.png
      weightslab diff 3f2a 77b0 9c01 --json
    """
    if len(refs) < _FEWEST:
        raise ValueError("a comparison needs two REFs at least")
    opened = open_root(root)
    wants_weights = weights or bool(tensors) or plot is not None
    with render.waiting("comparing"):
        found = opened.compare(*refs, weights=wants_weights, tensors=tuple(tensors or "*"))
    if plot is not None:
        from weightslab.cli.plotting import plot_bars

        bars = [(m.path or "(all)", m.numbers.relative or 0.0) for m in _modules(found)]
        title = f"relative change of weights, {' -> '.join(side.label for side in found.sides)}"
        render.note(f"wrote {plot_bars(bars, plot, title=title)}")
    if as_json:
        render.show_json("diff", {"root": str(opened.path), **found.to_dict()})
        return
    terminal = render.out()
    lines = map(inert, str(found).splitlines())
    render.say(
        *(cut(line, terminal.width, terminal.mark) if terminal.width else line for line in lines)
    )
    for told in found.weights:
        _show(told, terminal)


def _modules(found: Comparison) -> list[ModuleDiff]:
    return [module for told in found.weights for module in told.modules]


def _show(told: WeightsDiff, terminal: Terminal) -> None:
    """Print a bar for each module that changed, as long as the change is large."""
    shown = told.modules[:_MAX_MODULES]
    if not shown:
        return
    most = max((m.numbers.relative or 0.0 for m in shown), default=0.0)
    rows = [_row(module, most, is_unicode=terminal.is_unicode) for module in shown]
    render.say("")
    render.say_table(_COLUMNS, rows, styles=lambda at: "red" if rows[at][-1] else "")
    if len(told.modules) > len(shown):
        render.note(f"and {len(told.modules) - len(shown):,} more modules")


def _row(module: ModuleDiff, most: float, *, is_unicode: bool) -> Sequence[str]:
    numbers = module.numbers
    share = (numbers.relative or 0.0) / most if most else 0.0
    length = max(round(share * _BAR_COLUMNS), int(share > 0))
    fraction = numbers.fraction_changed
    return (
        inert(module.path) or "(all)",
        ("█" if is_unicode else "#") * length,
        number(numbers.relative),
        number(numbers.cosine),
        number(numbers.max_abs),
        "" if fraction is None else f"{fraction:.0%}",
        "NaN or Inf appeared" if numbers.became_nonfinite else "",
    )
