"""A list of changes as text that fits on a screen; what does not fit is counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MAX_COLUMNS", "MAX_LINES", "clean", "portions", "screen"]

MAX_LINES: Final = 40  # what a terminal shows without scrolling
MAX_COLUMNS: Final = 100
_MAX_BESIDE: Final = 6
_FEW: Final = 4  # lines of a shortened diff below which it says nothing


class _Told(Protocol):
    @property
    def component(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def detail(self) -> Sequence[str]: ...


def screen(head: str, changes: Sequence[_Told], beside: Sequence[object] = ()) -> str:
    """Return `head`, the changes and what is not in the identity.

    At most 40 lines of 100 columns: each change gets its line first, then diffs get the lines that
    are left, in equal shares.
    """
    notes = _notes(beside)
    room = MAX_LINES - 1 - len(notes)
    shown = list(changes) if len(changes) <= room else list(changes[: room - 1])
    left = changes[len(shown) :]
    shares = portions([len(c.detail) for c in shown], room - len(shown) - bool(left))
    lines = [head]
    for change, share in zip(shown, shares, strict=True):
        lines.append(f"  {change.text}")
        lines += [f"    {line}" for line in _shortened(change.detail, share)]
    if left:
        lines.append(f"  and {_counted(left)}")
    return "\n".join(clean(line) for line in [*lines, *notes])


def _notes(beside: Sequence[object]) -> list[str]:
    if not beside:
        return []
    shown = beside if len(beside) <= _MAX_BESIDE else beside[: _MAX_BESIDE - 1]
    notes = ["  not in the identity:", *(f"    {note}" for note in shown)]
    more = len(beside) - len(shown)
    return [*notes, f"    and {more:,} more"] if more else notes


def portions(wanted: Sequence[int], room: int) -> list[int]:
    """Divide `room` lines: the short ones get all they want, the others the same."""
    shares = [0] * len(wanted)
    waiting = [at for at in range(len(wanted)) if wanted[at]]
    while waiting and room > 0:
        part = max(1, room // len(waiting))
        for at in list(waiting):
            given = min(part, wanted[at] - shares[at], room)
            shares[at] += given
            room -= given
            if shares[at] == wanted[at]:
                waiting.remove(at)
    return shares


def _shortened(detail: Sequence[str], share: int) -> list[str]:
    if len(detail) <= share:
        return list(detail)
    if share < _FEW:
        return [f"... {len(detail):,} lines of detail"] if share else []
    return [*detail[: share - 1], f"... {len(detail) - share + 1:,} more lines"]


def _counted(changes: Iterable[_Told]) -> str:
    counts = Counter(change.component for change in changes)
    parts = ", ".join(f"{count:,} of the {name}" for name, count in counts.items())
    total = sum(counts.values())
    return f"{total:,} more change{'' if total == 1 else 's'} ({parts})"


def clean(line: str) -> str:
    """Return one line that does what it shows: no tabs, no line ends, nothing a terminal obeys."""
    line = line.expandtabs(4)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= MAX_COLUMNS else line[: MAX_COLUMNS - 3] + "..."
