"""`weightslab audit`: which checkpoints were trained with some samples."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, RootOption, complete_reference, experiment_of
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import counted, inert, number, when

if TYPE_CHECKING:
    from weightslab.engine.audit.report import AuditedCheckpoint, AuditReport
    from weightslab.engine.audit.sample_history import SampleHistory

__all__ = ["audit"]

_COLUMNS = (
    Column("VERDICT"),
    Column("CHECKPOINT", least=8, has_mark=False),
    Column("CREATED", rank=2),
    Column("SAMPLES", least=8, rank=1),
    Column("UNKNOWN", least=8, rank=3),
)
_STYLES = {"seen": "red", "possible": "yellow", "unknown": "yellow", "clean": ""}
_MAX_UIDS = 8


def audit(
    uids: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="UID...", help="The samples.", show_default=False),
    ] = None,
    file: Annotated[
        Optional[Path],
        typer.Option("--file", "-f", help="A file with one UID a line; - for the input."),
    ] = None,
    experiment: Annotated[
        Optional[str],
        typer.Option(
            "--experiment",
            metavar="REF",
            help="Only checkpoints of this experiment.",
            autocompletion=complete_reference,
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="When each sample was discarded and restored.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="List clean checkpoints, too.")] = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which checkpoints were trained with these samples, and which cannot have been.

    seen: the recorded position of the sampler proves it. possible: it was active somewhere in the
    ancestry. unknown: records of an ancestor are gone. clean: none of these.

    \b
    Examples:
      weightslab audit 17 99
      weightslab audit --file withdrawn.txt --json > report.json
      weightslab audit 17 --history
    """
    wanted = [*(uids or []), *_read(file)]
    if not wanted:
        raise ValueError("give UIDs, or a file with one a line: --file withdrawn.txt")
    opened = open_root(root)
    if history:
        _histories(
            [opened.sample_history(uid) for uid in wanted], str(opened.path), as_json=as_json
        )
        return
    exp_hash = None if experiment is None else experiment_of(opened, experiment)
    with render.waiting("looking at every ancestor"):
        report = opened.audit(wanted, exp_hash)
    if as_json:
        content = {
            k: v for k, v in report.to_dict().items() if k not in ("schema", "schema_version")
        }
        render.show_json("audit", {"root": str(opened.path), **content})
    else:
        _show(report, everything=everything)


def _read(file: Path | None) -> list[str]:
    if file is None:
        return []
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line]


def _show(report: AuditReport, *, everything: bool) -> None:
    listed = [found for found in report if everything or found.verdict != "clean"]
    if listed:
        styles = [_STYLES.get(found.verdict, "") for found in listed]
        render.say_table(_COLUMNS, [_row(found) for found in listed], styles=lambda at: styles[at])
    counts = ", ".join(f"{number(count)} {verdict}" for verdict, count in report.counts.items())
    render.say(f"{counted(len(report), 'checkpoint')}: {counts}")
    if report.never_active:
        render.warn(f"active in no experiment that could be read: {_few(report.never_active)}")
    newest = report.newest_clean
    render.say(f"newest clean: {newest.reference if newest is not None else 'none'}")


def _row(found: AuditedCheckpoint) -> list[str]:
    return [
        found.verdict,
        found.reference,
        when(found.created_at),
        _few(found.seen or found.possible),
        inert(found.unknown or ""),
    ]


def _few(uids: tuple[Any, ...]) -> str:
    shown = ", ".join(inert(uid) for uid in uids[:_MAX_UIDS])
    more = len(uids) - _MAX_UIDS
    return f"{shown} and {more:,} more" if more > 0 else shown


def _histories(found: list[SampleHistory], root: str, *, as_json: bool) -> None:
    if as_json:
        render.show_json(
            "history_of_samples", {"root": root, "samples": [h.to_dict() for h in found]}
        )
        return
    for told in found:
        render.say(*map(inert, str(told).splitlines()))
