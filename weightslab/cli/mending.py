"""`weightslab doctor`: what is wrong with a root, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from weightslab.cli import render
from weightslab.cli.arguments import DryRunOption, JsonOption, RootOption, YesOption
from weightslab.cli.roots import open_root
from weightslab.cli.texts import counted, inert, number

if TYPE_CHECKING:
    from weightslab.engine.care.diagnosis import Diagnosis

__all__ = ["doctor"]

DAMAGED: Final = 20
NOT_DONE: Final = 1
_STYLES: Final = {"error": "red", "warning": "yellow", "note": "dim"}


def doctor(
    mend: Annotated[
        bool, typer.Option("--mend", help="Mend what can be mended without losing anything.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is wrong with this root, and how to mend it.

    Looks at names and records; `verify` reads every byte. Ends with 20 where something is lost or cannot
    be used, with 1 where something is in the way.

    \b
    Examples:
      weightslab doctor
      weightslab doctor --mend --dry-run
      weightslab doctor --mend --yes
    """
    does_mend = mend and not dry_run
    opened = open_root(root, write=does_mend)
    with render.waiting("looking at the root"):
        found = opened.doctor()
    mendable = [problem for problem in found if problem.is_mendable]
    if does_mend and mendable:
        if not as_json:
            _show(found)
        if not render.confirm(f"mend {number(len(mendable))} of these?", yes=yes):
            raise typer.Exit(1)
        found = opened.doctor(mend=True)
    if as_json:
        render.show_json("doctor", {"root": str(opened.path), **found.to_dict()})
    else:
        _show(found)
        if mendable and not does_mend:
            render.note(f"{len(mendable):,} of these can be mended: weightslab doctor --mend")
    if not found.is_healthy:
        has_error = any(problem.severity == "error" for problem in found)
        raise typer.Exit(DAMAGED if has_error else NOT_DONE)


def _show(found: Diagnosis) -> None:
    terminal = render.out()
    for problem in found:
        head = terminal.paint(problem.severity, _STYLES.get(problem.severity, ""))
        render.say(
            f"{head}  {inert(problem.where)}: {inert(problem.what)}", f"  {inert(problem.mend)}"
        )
    for problem in found.mended:
        render.say(
            f"{terminal.paint('mended', 'green')}  {inert(problem.where)}: {inert(problem.what)}"
        )
    for failure in found.failed:
        render.say(f"{terminal.paint('not mended', 'red')}  {inert(failure)}")
    count = (
        f"{number(found.num_experiments)} experiments, {number(found.num_checkpoints)} checkpoints"
    )
    healthy = "nothing is wrong" if found.is_healthy else counted(len(found), "problem")
    render.say(f"{terminal.paint(healthy, 'green' if found.is_healthy else 'red')}: {count}")
