"""A comparison for people: a screen of text, and tables for a notebook."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.screen import MAX_LINES, clean, portions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightslab.engine.comparing.results import (
        Comparison,
        DataDiff,
        Row,
        TensorNumbers,
        WeightsDiff,
    )

__all__ = ["to_html", "to_text"]

Section = tuple[str, list[str]]
_MAX_VALUE: Final = 40
_MAX_SECTIONS: Final = 16  # of many sides: each still has a line or two
_MAX_ROWS: Final = 200  # rows of a table in a notebook; the rest is counted


def to_text(found: Comparison) -> str:
    """Return at most 40 lines of 100 columns."""
    head = " | ".join(_label(found, at) for at in range(len(found.sides)))
    sections = [section for section in _sections(found) if section[1]]
    if not sections:
        return clean(f"{head}: no differences")
    more = len(sections) - _MAX_SECTIONS
    if more > 0:
        sections[_MAX_SECTIONS:] = [(f"and {more:,} parts more; see to_dict()", [])]
    room = MAX_LINES - 1 - len(sections)
    given = portions([len(lines) for _, lines in sections], room)
    shown = [head]
    for (title, lines), share in zip(sections, given, strict=True):
        shown.append(title)
        if len(lines) <= share:
            shown += [f"  {line}" for line in lines]
        elif share:
            kept = lines[: share - 1]
            shown += [*(f"  {line}" for line in kept), f"  and {len(lines) - len(kept):,} more"]
    return "\n".join(clean(line) for line in shown)


def _label(found: Comparison, at: int) -> str:
    side = found.sides[at]
    if side.is_experiment and side.step is not None:
        return f"{side.label} (newest: step {side.step})"
    return side.label


def _sections(found: Comparison) -> Iterable[Section]:
    yield "problems", list(found.problems)
    for diff in found.architecture:
        lines = [change.text for change in diff.changes]
        yield f"model{_which(found, diff.old, diff.new)}: {_count(len(lines), 'change')}", lines
    hidden = [" (excluded)" * (not row.counts) for row in found.config]
    keys = [f"{_row(row)}{mark}" for row, mark in zip(found.config, hidden, strict=True)]
    yield f"config: {_count(len(keys), 'key')}", keys
    for data in found.data:
        yield f"data{_which(found, data.old, data.new)}", data_lines(data)
    for weights in found.weights:
        yield f"weights{_which(found, weights.old, weights.new)}", weight_lines(weights)
    yield "optimizers", [_row(row) for row in found.optimizers]
    yield "metrics", [_row(row) for row in found.metrics]
    yield "environment", [_row(row) for row in found.environment]


def _which(found: Comparison, old: int, new: int) -> str:
    """Name the two sides where there are more."""
    if len(found.sides) == 2:  # noqa: PLR2004
        return ""
    return f" {found.sides[old].label} -> {found.sides[new].label}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _row(row: Row) -> str:
    arrow = " -> " if len(row.values) == 2 else " | "  # noqa: PLR2004
    cells = zip(row.values, row.present, strict=True)
    shown = arrow.join(cell(value, present) for value, present in cells)
    return f"{row.path}: {shown}"


def cell(value: Any, present: bool | None) -> str:
    """Return a value of a table, in few characters."""
    if present is None:
        return "(unreadable)"
    if not present:
        return "(none)"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def data_lines(diff: DataDiff) -> list[str]:
    """Return what is said of samples: numbers first, then labels, then UIDs."""
    sizes = [("none" if n is None else f"{n:,}") for n in (diff.num_old, diff.num_new)]
    changed = f"{len(diff.added):,} added, {len(diff.removed):,} removed"
    lines = [f"{sizes[0]} -> {sizes[1]} samples: {changed}"]
    for facet, counts in diff.by_label.items():
        lines += [f"{facet} {value}: -{gone:,} +{come:,}" for value, (gone, come) in counts.items()]
    lines += [
        f"{facet}: {n:,} samples have another value" for facet, n in diff.relabelled.items() if n
    ]
    for word, samples in (("added", diff.added), ("removed", diff.removed)):
        if len(samples):
            first = [str(uid) for uid, _ in zip(samples, range(8), strict=False)]
            more = f" and {len(samples) - 8:,} more" if len(samples) > 8 else ""  # noqa: PLR2004
            lines.append(f"{word}: {', '.join(first)}{more}")
    return lines


def weight_lines(diff: WeightsDiff) -> list[str]:
    """Return what is said of weights: numbers, the modules that changed most, then single tensors."""
    kinds: dict[str, int] = {}
    for tensor in diff.tensors:
        kinds[tensor.kind] = kinds.get(tensor.kind, 0) + 1
    parts = [f"{n:,} {kind}" for kind, n in kinds.items()]
    lines = [", ".join([f"{diff.num_same:,} tensors the same", *parts])]
    modules = sorted(diff.modules, key=lambda m: (bool(m.path), -(m.numbers.relative or 0.0)))
    leaves = [t for t in diff.tensors if t.kind != "changed"]
    for tensor in leaves:
        was = f" (was {tensor.old_name})" if tensor.old_name else ""
        lines.append(f"{tensor.name}{was} {tensor.kind}: {_spec(tensor)}")
    for tensor in diff.tensors:
        if tensor.numbers is not None and tensor.numbers.became_nonfinite:
            n = tensor.numbers
            lines.append(f"{tensor.name}: {n.num_nan_new:,} NaN, {n.num_inf_new:,} Inf appeared")
    for module in modules:
        counts = f"{module.num_changed:,} of {module.num_tensors:,} tensors"
        lines.append(f"{module.path or '(the model)'}: {counts}, {_numbers(module.numbers)}")
    for moment in diff.moments:
        n = moment.numbers
        norms = (
            f"norm {cell(n.l2_old, n.l2_old is not None)} -> {cell(n.l2_new, n.l2_new is not None)}"
        )
        lines.append(f"{moment.optimizer}.{moment.key}: {norms}")
    return lines if len(lines) > 1 or kinds else []


def _spec(tensor: Any) -> str:
    sides = [
        f"{dtype} {list(shape)}"
        for dtype, shape in (
            (tensor.dtype_old, tensor.shape_old),
            (tensor.dtype_new, tensor.shape_new),
        )
        if dtype is not None
    ]
    return " -> ".join(dict.fromkeys(sides))


def _numbers(found: TensorNumbers) -> str:
    parts = []
    if found.relative is not None:
        parts.append(f"relative {found.relative:.3g}")
    if found.cosine is not None:
        parts.append(f"cosine {found.cosine:.6f}")
    if found.max_abs is not None:
        parts.append(f"max {found.max_abs:.3g}")
    if found.fraction_changed is not None:
        parts.append(f"{100 * found.fraction_changed:.1f} % of items")
    return ", ".join(parts)


# ---------------------------------------------------------------- notebooks
def to_html(found: Comparison) -> str:
    """Return tables; every text of the root is escaped."""
    labels = [_label(found, at) for at in range(len(found.sides))]
    parts = [f"<h4>{_safe(' | '.join(labels))}</h4>"]
    tables = {"config", "optimizers", "metrics", "environment"}
    rows = {name: getattr(found, name) for name in tables}
    for title, lines in _sections(found):
        name = title.partition(":")[0]
        if not lines:
            continue
        parts.append(f"<h5>{_safe(title)}</h5>")
        parts.append(_table(labels, rows[name]) if name in tables else _list(lines))
    if len(parts) == 1:
        parts.append("<p>no differences</p>")
    return f"<div>{''.join(parts)}</div>"


def _table(labels: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{_safe(text)}</th>" for text in ("", *labels))
    body = []
    for row in rows[:_MAX_ROWS]:
        cells = [cell(v, p) for v, p in zip(row.values, row.present, strict=True)]
        filled = "".join(f"<td>{_safe(text)}</td>" for text in (row.path, *cells))
        body.append(f"<tr>{filled}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>{_more(len(rows))}"


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_safe(line)}</li>" for line in lines[:_MAX_ROWS])
    return f"<ul>{items}</ul>{_more(len(lines))}"


def _more(number: int) -> str:
    return f"<p>and {number - _MAX_ROWS:,} more</p>" if number > _MAX_ROWS else ""


def _safe(text: str) -> str:
    """Return text that shows what it is: no markup, no character that nobody sees."""
    return html.escape("".join(c if c.isprintable() else "?" for c in text))
