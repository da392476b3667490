"""`weightslab reproduce`: the commands and files by which an experiment can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, ReferenceArgument, RootOption
from weightslab.cli.roots import open_root
from weightslab.cli.texts import inert

__all__ = ["reproduce"]


def reproduce(
    ref: ReferenceArgument,
    write: Annotated[
        Optional[Path],
        typer.Option("--write", metavar="FOLDER", help="Write config, samples, diff there."),
    ] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the commands, config and samples that an experiment was made with, and what is missing.

    Nothing is run.

    \b
    Examples:
      weightslab reproduce 3f2a
      weightslab reproduce 3f2a@100 --write recipe
    """
    opened = open_root(root)
    recipe = opened.reproduce(ref)
    if write is not None:
        render.note(f"wrote {recipe.write(write)}")
    if as_json:
        render.show_json("reproduce", {"root": str(opened.path), **recipe.to_dict()})
    else:
        render.say(*map(inert, str(recipe).splitlines()))
