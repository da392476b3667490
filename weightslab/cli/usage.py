"""`weightslab du`: how many bytes the experiments of a root take."""

from __future__ import annotations

from typing import Annotated

import typer

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, RootOption
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import number, size

__all__ = ["du"]

_EXPERIMENTS = (
    Column("HASH", least=8, has_mark=False),
    Column("OWN", is_right=True),
    Column("SHARED", is_right=True),
    Column("ALL NAMES", is_right=True, rank=2),
    Column("FILES", is_right=True, rank=1),
)
_KINDS = (
    Column("KIND"),
    Column("ON DISK", is_right=True),
    Column("ALL NAMES", is_right=True, rank=2),
    Column("FILES", is_right=True, rank=1),
)


def du(
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=0, help="How many experiments; 0 for all.")
    ] = 30,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how many bytes each experiment takes: its own, and those it shares by links.

    OWN is what deleting the experiment frees; bytes with several names are on disk once.

    \b
    Examples:
      weightslab du
      weightslab du --limit 0 --json
    """
    opened = open_root(root)
    found = opened.usage()
    if as_json:
        render.show_json("du", {"root": str(opened.path), **found.to_dict()})
        return
    shown = found.experiments[: limit or None]
    rows = [
        [
            e.exp_hash,
            size(e.own_bytes),
            size(e.shared_bytes),
            size(e.size_bytes),
            number(e.num_files),
        ]
        for e in shown
    ]
    if rows:
        render.say_table(_EXPERIMENTS, rows)
    if len(found.experiments) > len(shown):
        render.note(f"and {len(found.experiments) - len(shown):,} more; --limit 0 lists all")
    kinds = [
        [kind, size(k.disk_bytes), size(k.size_bytes), number(k.num_files)]
        for kind, k in found.kinds.items()
    ]
    if kinds:
        render.say("")
        render.say_table(_KINDS, kinds)
    render.say("", f"{size(found.disk_bytes)} on disk in {number(found.num_files)} files")
    for problem in found.problems:
        render.warn(f"not counted: {problem}")
