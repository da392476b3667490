"""The way in: runs a command and turns what goes wrong into words and an exit code.

Free of typer until it is known to be there.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from weightslab.cli import render
from weightslab.engine.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

DEBUG: Final = "WEIGHTSLAB_DEBUG"
USAGE: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: what `git log | head -1` ends with, too


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    Args:
        arguments: the words after `weightslab`; by default those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    render.prepare()
    try:
        code = _guarded(words)
        sys.stdout.flush()
    except (BrokenPipeError, render.PipeClosedError):
        _silence()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _guarded(words: list[str]) -> int:
    try:
        return _run(words)
    except (BrokenPipeError, render.PipeClosedError):
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        failure = _Failure.of(error)
        failure.show(as_json="--json" in words)
        return failure.code


def _run(words: list[str]) -> int:
    for name in ("typer", "rich"):
        if find_spec(name) is None:
            raise MissingExtraError(
                f"the command line needs {name}", hint="pip install 'weightslab[cli]'"
            )
    import typer

    from weightslab.cli.app import make_app

    command = typer.main.get_command(make_app(words))
    try:
        code = command.main(args=words, prog_name="weightslab", standalone_mode=False)
    except typer.Abort:  # Ctrl-C, as some versions of typer tell it
        return INTERRUPTED
    return code if isinstance(code, int) else 0


class _Failure:
    """What is told of an error: its words, what to do, the exit code."""

    def __init__(
        self, kind: str, message: str, hint: str | None, code: int, context: dict[str, Any]
    ) -> None:
        self.kind, self.message, self.hint, self.code = kind, message, hint, code
        self.context = context

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        """Return what is told of an exception."""
        kind = type(error).__name__
        if isinstance(error, CheckpointError):
            picture = getattr(error, "picture", "")  # of a filter: the place is marked
            message = f"{error.message}\n{picture}" if picture else error.message
            return cls(kind, message, error.hint, error.exit_code, error.context)
        if isinstance(error, render.NeedsAnswerError):
            return cls("UsageError", str(error), "pass --yes to do it without asking", USAGE, {})
        told = getattr(error, "format_message", None)
        if callable(told):  # an error of typer about what was typed
            context = getattr(error, "ctx", None)
            path = getattr(context, "command_path", "weightslab")
            return cls("UsageError", told(), f"see {path} --help", USAGE, {})
        if isinstance(error, (ValueError, TypeError)):
            return cls("UsageError", str(error), getattr(error, "hint", None), USAGE, {})
        if isinstance(error, OSError):
            return cls(kind, str(error), None, 30, {})
        hint = f"this is a mistake of the program; {DEBUG}=1 shows where"
        return cls(kind, f"{kind}: {error}", hint, 1, {})

    def show(self, *, as_json: bool) -> None:
        """Print it to the error output."""
        if not as_json:
            render.show_error(self.message, self.hint)
            return
        found = {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.code,
            "context": {key: value for key, value in self.context.items() if _is_plain(value)},
        }
        render.show_json("error", {"error": found}, stream=sys.stderr)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _silence() -> None:
    """Let the interpreter flush into nothing when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
