"""Tables of plain text that fit the terminal. Pure.

A table of rich takes 1.5 ms a row and 0.1 s to import; this one takes 10 us a row. What does not fit:
columns that may be cut are cut, the widest first, then those of the highest rank are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.cli.texts import columns_of, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Column", "layout_table"]

_GAP: Final = 2


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its head.
        is_right: numbers stand at the right.
        least: how narrow it may be cut; 0 if it is shown whole or not at all.
        rank: of the columns that do not fit, the highest goes first; 0 always stays.
        has_mark: what is cut is marked; a hash is not, since its beginning is a name, too.
    """

    title: str
    is_right: bool = False
    least: int = 0
    rank: int = 0
    has_mark: bool = True


def layout_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    mark: str = "...",
    paint: Callable[[int, str], str] = lambda _, line: line,
) -> list[str]:
    """Return the lines of a table; columns in which no row has anything are left out.

    Args:
        columns: what there is.
        rows: printable texts, one for each column.
        width: of the terminal; None for no limit.
        mark: stands for what was cut off.
        paint: called with the number of a row (-1 for the head) and its line; returns it in colour.
    """
    widths = {
        at: max([columns_of(column.title), *(columns_of(row[at]) for row in rows)])
        for at, column in enumerate(columns)
        if not rows or any(row[at] for row in rows)
    }
    if width is not None:
        widths = _fitted(columns, widths, width)
    lines = [[column.title for column in columns], *rows]
    return [paint(n - 1, _line(columns, row, widths, width, mark)) for n, row in enumerate(lines)]


def _fitted(columns: Sequence[Column], wanted: dict[int, int], width: int) -> dict[int, int]:
    """Return column -> width of those that stay."""
    shown = dict(wanted)
    while True:
        found = _narrowed(columns, shown, width)
        if _total(found) <= width:
            return found
        last = max(shown, key=lambda at: columns[at].rank)
        if not columns[last].rank:
            return found
        del shown[last]


def _narrowed(columns: Sequence[Column], wanted: dict[int, int], width: int) -> dict[int, int]:
    found = dict(wanted)
    while (excess := _total(found) - width) > 0:
        loose = [at for at in found if columns[at].least and found[at] > columns[at].least]
        if not loose:
            break
        widest = max(loose, key=lambda at: found[at])
        found[widest] -= min(excess, max((found[widest] - columns[widest].least + 1) // 2, 1))
    return found


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + _GAP * max(len(widths) - 1, 0)


def _line(
    columns: Sequence[Column],
    row: Sequence[str],
    widths: dict[int, int],
    width: int | None,
    mark: str,
) -> str:
    cells = []
    for at, room in widths.items():
        text = cut(row[at], room, mark if columns[at].has_mark else "")
        blank = " " * (room - columns_of(text))
        cells.append(blank + text if columns[at].is_right else text + blank)
    line = (" " * _GAP).join(cells).rstrip()
    return line if width is None else cut(line, width, mark)
