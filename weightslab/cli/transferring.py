"""`weightslab bundle`, `unbundle` and `copy`: experiments go from one root into another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    NAMES,
    DryRunOption,
    JsonOption,
    RootOption,
    complete_reference,
)
from weightslab.cli.roots import open_new_root, open_root
from weightslab.cli.texts import counted, inert, size

if TYPE_CHECKING:
    from weightslab.engine.transfer.report import TransferReport

__all__ = ["bundle", "copy", "unbundle"]

_References = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[REF...]",
        help=f"{NAMES}; none: everything.",
        autocompletion=complete_reference,
        show_default=False,
    ),
]
_Lineage = Annotated[
    str,
    typer.Option(
        "--lineage",
        help="full: with the checkpoints that led to these; records: with their experiments; none.",
    ),
]


def bundle(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to make.", show_default=False)
    ],
    refs: _References = None,
    lineage: _Lineage = "full",
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write experiments or checkpoints with their lineage into one file, for another machine.

    A hash alone is the experiment with all its checkpoints. Names, notes, tags, pins, configs, samples and
    sessions go along. Every byte is verified; what is damaged is left out and named, and ends with 1.

    \b
    Examples:
      weightslab bundle run.wlb 3f2a
      weightslab bundle best.wlb 3f2a@best:loss --lineage records
      weightslab bundle everything.wlb
    """
    opened = open_root(root)
    with render.progress(f"writing {file}") as progress:
        report = opened.bundle(file, *(refs or ()), lineage=lineage, progress=progress)
    if as_json:
        render.show_json("bundle", {"root": str(opened.path), **report.to_dict()})
    else:
        render.say(
            f"{inert(file)}  {size(report.size_bytes)}:"
            f" {counted(len(report.experiments), 'experiment')},"
            f" {counted(len(report.checkpoints), 'checkpoint')}"
        )
        for name, reason in report.left_out:
            render.warn(f"left out: {name}: {reason}")
        for gap in report.gaps:
            render.note(f"not in it: {gap}")
    _end(is_complete=report.is_complete)


def unbundle(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What bundle wrote.", show_default=False)
    ],
    dry_run: DryRunOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a bundle into a root, which is made if it is not there.

    Every byte is verified before anything appears. What is there already is not written again, and nothing
    is replaced: another checkpoint of the same name is a conflict, stays out, and ends with 1.

    \b
    Examples:
      weightslab unbundle run.wlb
      weightslab unbundle run.wlb --root archive --dry-run
    """
    opened = open_new_root(root, write=not dry_run)
    with render.progress(f"reading {file}") as progress:
        report = opened.unbundle(file, dry_run=dry_run, progress=progress)
    _show("unbundle", report, as_json=as_json)


def copy(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The other root.", show_default=False)
    ],
    refs: _References = None,
    lineage: _Lineage = "full",
    no_links: Annotated[
        bool, typer.Option("--no-links", help="Write every byte, for a backup on the same disk.")
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy experiments or checkpoints with their lineage into another root, without duplicates.

    The other root is made if it is not there. Files that it has already, or that can be linked, are not
    written again. Nothing is replaced; what stays out is named, and ends with 1.

    \b
    Examples:
      weightslab copy ../archive 3f2a
      weightslab copy ../archive 3f2a@best:loss --lineage none
      weightslab copy /backup/root --no-links --dry-run
    """
    opened = open_root(root)
    other = open_new_root(target, write=not dry_run)
    with render.progress(f"copying to {target}") as progress:
        report = opened.copy_to(
            other,
            *(refs or ()),
            lineage=lineage,
            links=not no_links,
            dry_run=dry_run,
            progress=progress,
        )
    _show("copy", report, as_json=as_json)


def _show(kind: str, report: TransferReport, *, as_json: bool) -> None:
    if as_json:
        told = {k: v for k, v in report.to_dict().items() if not k.startswith("schema")}
        render.show_json(kind, told)
    else:
        render.say(*str(report).splitlines())
        if report.is_dry_run:
            render.note("nothing was changed")
        else:
            written, linked = size(report.written_bytes), size(report.linked_bytes)
            render.note(f"{written} written, {linked} linked")
    _end(is_complete=report.is_complete)


def _end(*, is_complete: bool) -> None:
    if not is_complete:
        raise typer.Exit(1)
