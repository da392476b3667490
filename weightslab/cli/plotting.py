"""Curves and bars as a PNG, drawn by matplotlib without any screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.cli.texts import inert
from weightslab.engine.errors import AlreadyExistsError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["plot_bars", "plot_curves"]

_MAX_CURVES = 12  # in one legend
_BAR_INCHES = 0.22


def plot_curves(curves: Mapping[tuple[str, str], Mapping[int, float]], path: Path) -> Path:
    """Draw (experiment, metric) -> step -> value, a panel for each metric.

    Raises: MissingExtraError; AlreadyExistsError: nothing is replaced; ValueError for no curves.
    """
    names = list(dict.fromkeys(name for _, name in curves))
    if not names:
        raise ValueError("there is nothing to draw: no metrics")
    figure = _figure(path, height=max(3.0 * len(names), 3.0))
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        own = [(h, curve) for (h, metric), curve in curves.items() if metric == name]
        for exp_hash, curve in own:
            values = [_drawable(value) for value in curve.values()]
            panel.plot([*curve], values, label=inert(exp_hash)[:8], marker=".")
        panel.set_title(_plain(name))
        panel.set_xlabel("step")
        if len(own) <= _MAX_CURVES:
            panel.legend(fontsize="small")
    return _write(figure, path)


def plot_bars(bars: Sequence[tuple[str, float]], path: Path, *, title: str) -> Path:
    """Draw a bar for each (name, value), the first at the top.

    Raises: MissingExtraError; AlreadyExistsError: nothing is replaced; ValueError for no bars.
    """
    if not bars:
        raise ValueError("there is nothing to draw: no difference")
    figure = _figure(path, height=1.5 + _BAR_INCHES * len(bars))
    panel = figure.subplots()
    panel.barh([_plain(name) for name, _ in bars], [_drawable(value) for _, value in bars])
    panel.invert_yaxis()
    panel.set_title(title)
    return _write(figure, path)


def _figure(path: Path, *, height: float) -> Any:
    if path.exists():
        raise AlreadyExistsError(f"{path} exists", hint="choose another path; nothing is replaced")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "--plot needs matplotlib", hint="pip install 'weightslab[plot]'"
        ) from error
    figure = Figure(figsize=(8.0, min(height, 200.0)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: Path) -> Path:
    with path.open("xb") as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def _plain(text: str) -> str:
    return inert(text).replace("$", r"\$")  # matplotlib would read formulas


def _drawable(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
