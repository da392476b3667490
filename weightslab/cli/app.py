"""The commands there are, and where each of them lies; only what is called is imported."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Annotated, Final

import typer

from weightslab import __version__
from weightslab.cli import render
from weightslab.cli.arguments import RootOption

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMANDS", "make_app"]

# command -> module, and its line in the list; the name of its function is that of the command
COMMANDS: Final = {
    "ls": ("listing", "List experiments, or the checkpoints of one."),
    "show": ("showing", "Show an experiment or a checkpoint."),
    "tree": ("lineage", "Show which experiment came from which."),
    "log": ("metrics", "Show metrics as curves."),
    "samples": ("samples", "Show the samples of an experiment."),
    "diff": ("comparing", "Compare experiments or checkpoints."),
    "audit": ("auditing", "Tell which checkpoints saw a sample."),
    "reproduce": ("reproducing", "Tell how to make an experiment again."),
    "du": ("usage", "Tell how many bytes experiments take."),
    "verify": ("checking", "Read every byte, and tell what is wrong."),
    "doctor": ("mending", "Tell what is in the way, and mend it."),
    "gc": ("collecting", "Drop checkpoints that nothing keeps."),
    "rm": ("removing", "Delete checkpoints or experiments."),
    "restore": ("restoring", "Bring checkpoints back from the trash."),
    "pin": ("noting", "Keep something from being deleted."),
    "tag": ("noting", "Give something a tag, or list tags."),
    "note": ("noting", "Write a note or a name, or list notes."),
    "export": ("exporting", "Write a checkpoint as others read it."),
    "import": ("importing", "Take in checkpoints of other systems."),
    "bundle": ("transferring", "Write experiments into one file."),
    "unbundle": ("transferring", "Take in what bundle wrote."),
    "copy": ("transferring", "Copy experiments into another root."),
}
_HELP: Final = """What a root of checkpoints holds: find, compare, understand, care for it.

\b
REF names an experiment or a checkpoint:
  3f2a             an experiment, by its hash or the beginning of it
  3f2a@100         its checkpoint of step 100 (3f2a@100.r2: revision 2)
  3f2a@latest      the newest;  3f2a@best:loss  3f2a@best:accuracy:max
  latest           the newest of the root

\b
Exit codes: 0 done, 1 not done, 2 wrong arguments, 10 not found, 11 in the way, 12 pinned,
20 damaged, 21 not understood, 30 storage, 40 a package is missing, 130 Ctrl-C.
"""


def make_app(words: Iterable[str]) -> typer.Typer:
    """Return the application with the command that `words` name, or with all of them.

    A typer command takes 2 ms to build and its module as long to import, so the others are left out.
    """
    app = typer.Typer(
        name="weightslab",
        rich_markup_mode=None,  # rich would take half of the time of `--help`
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_HELP)(_options)
    called = next((word for word in words if word in COMMANDS), None)
    for name in COMMANDS if called is None else (called,):
        module, told = COMMANDS[name]
        own = f"{name}_" if iskeyword(name) else name
        function = getattr(import_module(f"weightslab.cli.{module}"), own)
        app.command(name, short_help=told)(function)
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        render.say(__version__)
        raise typer.Exit


def _options(
    ctx: typer.Context,
    root: RootOption = None,
    version: Annotated[  # noqa: ARG001 - the callback has done its work
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    if root is not None:
        ctx.default_map = {name: {"root": str(root)} for name in COMMANDS}
