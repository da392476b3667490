"""Everything that is printed: lines, tables, JSON, errors, questions, progress.

The only place with `print`. Colour is for terminals alone, and `NO_COLOR` is respected; characters that
the output cannot show are written as escapes, never an error.
"""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.cli.tables import layout_table
from weightslab.cli.texts import inert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    from rich.console import Console

    from weightslab.cli.tables import Column

__all__ = ["Terminal", "confirm", "prepare", "progress", "say", "show_error", "show_json", "warn"]

SCHEMA_VERSION: Final = 1
_COLOURS: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
_PLAIN_LOCALES: Final = ("C", "POSIX")


class PipeClosedError(Exception):
    """Whoever read the output has had enough. No OSError, which typer would end with exit code 1."""


class NeedsAnswerError(Exception):
    """A question has to be answered, and there is nobody to ask."""


@dataclass(frozen=True)
class Terminal:
    """What the output can show.

    Attributes:
        width: columns; None where it is no terminal, and lines are as long as they need be.
        has_colour: escape sequences may be written.
        is_unicode: bars and branches can be drawn with characters beyond ASCII.
    """

    width: int | None
    has_colour: bool
    is_unicode: bool

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """Return what a stream can show."""
        is_terminal = stream.isatty()
        has_colour = is_terminal and not os.environ.get("NO_COLOR")
        has_colour = has_colour and os.environ.get("TERM", "xterm") != "dumb"
        if sys.platform == "win32":  # older consoles print the sequences as they are
            has_colour = has_colour and "WT_SESSION" in os.environ
        return cls(
            width=_width(stream) if is_terminal else None,
            has_colour=has_colour,
            is_unicode=_is_unicode(stream),
        )

    @property
    def mark(self) -> str:
        """What stands for text that was cut off."""
        return "…" if self.is_unicode else "..."

    def paint(self, text: str, *styles: str) -> str:
        """Return text in colour where there is colour; no style at all leaves it as it is."""
        codes = [_COLOURS[style] for style in styles if style]
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes and self.has_colour else text


def _width(stream: TextIO) -> int | None:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _is_unicode(stream: TextIO) -> bool:
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    if next((name for name in names if name), "") in _PLAIN_LOCALES:
        return False  # Python writes UTF-8 all the same, which such a terminal does not show
    try:
        "▁█├…".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def prepare() -> None:
    """Let no character be an error: what the output cannot encode is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def out() -> Terminal:
    """Return what standard output can show now."""
    return Terminal.of(sys.stdout)


# ---------------------------------------------------------------- saying
def _print(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    try:
        print(text, end=end, file=file or sys.stdout, flush=bool(file))
    except BrokenPipeError as error:
        raise PipeClosedError from error


def say(*lines: str) -> None:
    """Print lines of the answer."""
    for line in lines:
        _print(line)


def warn(text: str) -> None:
    """Print a line beside the answer."""
    told = Terminal.of(sys.stderr).paint("warning:", "yellow")
    _print(f"{told} {inert(text)}", file=sys.stderr)


def note(text: str) -> None:
    """Print a line that is not part of the answer, dim, to the error output."""
    _print(Terminal.of(sys.stderr).paint(inert(text), "dim"), file=sys.stderr)


def say_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    styles: Callable[[int], str] = lambda _: "",
) -> None:
    """Print a table; `styles` gives the style of a row by its number."""
    terminal = out()

    def paint(at: int, line: str) -> str:
        return terminal.paint(line, "bold" if at < 0 else styles(at))

    say(*layout_table(columns, rows, width=terminal.width, mark=terminal.mark, paint=paint))


def say_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line; those without a value are left out. Both are inert."""
    terminal = out()
    told = [(name, value) for name, value in facts if value]
    room = max((len(name) for name, _ in told), default=0)
    for name, value in told:
        say(f"{terminal.paint(name.ljust(room), 'bold')}  {value}")


def show_json(kind: str, content: dict[str, Any], *, stream: TextIO | None = None) -> None:
    """Print one document; its first two keys say what it is. Pure ASCII; NaN is the text `nan`."""
    document = {"schema": f"weightslab.cli.{kind}", "schema_version": SCHEMA_VERSION, **content}
    _print(json.dumps(_finite(document), indent=2), file=stream or sys.stdout)


def _finite(value: Any) -> Any:
    """Return plain JSON: numbers that JSON has no word for become `nan`, `inf` and `-inf`."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def show_error(message: str, hint: str | None = None) -> None:
    """Print what went wrong, and what to do about it, to the error output."""
    terminal = Terminal.of(sys.stderr)
    for name, style, text in (("error", "red", message), ("hint", "cyan", hint)):
        for at, line in enumerate((text or "").splitlines()):
            head = terminal.paint(f"{name}:", style) if at == 0 else " " * len(f"{name}:")
            _print(f"{head} {inert(line)}", file=sys.stderr)


# ---------------------------------------------------------------- asking
def confirm(question: str, *, yes: bool) -> bool:
    """Tell whether to go on: `yes`, or somebody at the terminal says so.

    Raises: NeedsAnswerError if nobody can be asked.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NeedsAnswerError(f"nothing was changed: {question} needs an answer")
    _print(f"{inert(question)} [y/N] ", end="", file=sys.stderr)
    answer = sys.stdin.readline().strip().lower()
    if answer in ("y", "yes"):
        return True
    note("nothing was changed")
    return False


# ---------------------------------------------------------------- waiting
@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], object] | None]:
    """Show how far long work has come; yields what is to be called with (bytes done, in all).

    Yields None where the error output is no terminal, so that nothing is drawn into a log.
    """
    if not _can_draw():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task(inert(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show that work goes on whose end cannot be told."""
    if not _can_draw():
        yield
        return
    with _console().status(inert(label)):
        yield


def _can_draw() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _console() -> Console:
    from rich.console import Console

    has_colour = Terminal.of(sys.stderr).has_colour
    return Console(stderr=True, no_color=not has_colour, markup=False, highlight=False)
