"""`weightslab verify`: every byte is read and held against what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, OptionalReference, RootOption, chosen, has_revision
from weightslab.cli.roots import open_root
from weightslab.cli.texts import counted, inert, size

if TYPE_CHECKING:
    from weightslab.engine.repository.findings import Finding, VerifyReport

__all__ = ["verify"]

DAMAGED: Final = 20
UNREADABLE: Final = 30


def verify(
    ref: OptionalReference = None, root: RootOption = None, as_json: JsonOption = False
) -> None:
    """Read every byte of the root, of an experiment or of a checkpoint, and tell what is wrong.

    Ends with 20 where something is damaged, and with 30 where something could only not be read.

    \b
    Examples:
      weightslab verify
      weightslab verify 3f2a@100
      weightslab verify --json > report.json
    """
    opened = open_root(root)
    about: dict[str, Any] = {}
    exp_hash = None
    if ref is not None:
        exp_hash, name = chosen(opened, ref)
        if name is not None:
            about = {"step": name.step, "revision": name.revision if has_revision(ref) else None}
    with render.progress("verifying") as progress:
        report = opened.verify(exp_hash, progress=progress, **about)
    if as_json:
        render.show_json("verify", {"root": str(opened.path), **_plain(report)})
    else:
        _show(report)
    if report.findings:
        is_damage = any(finding.is_damage for finding in report)
        raise typer.Exit(DAMAGED if is_damage else UNREADABLE)


def _plain(report: VerifyReport) -> dict[str, Any]:
    return {
        "num_experiments": report.num_experiments,
        "num_checkpoints": report.num_checkpoints,
        "num_files": report.num_files,
        "size_bytes": report.size_bytes,
        "findings": [_finding(finding) for finding in report],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in finding.__slots__}


def _show(report: VerifyReport) -> None:
    terminal = render.out()
    for finding in report:
        kind = "damaged" if finding.is_damage else "unreadable"
        render.say(f"{terminal.paint(kind, 'red')}  {inert(finding)}")
    count = len(report.findings)
    told = counted(count, "finding") if count else "nothing is wrong"
    head = terminal.paint(told, "red" if count else "green")
    render.say(
        f"{head}: {counted(report.num_checkpoints, 'checkpoint')},"
        f" {counted(report.num_files, 'file')}, {size(report.size_bytes)}"
    )
