"""`weightslab import`: checkpoints of other systems become experiments of a root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import DryRunOption, JsonOption, RootOption
from weightslab.cli.roots import open_new_root

__all__ = ["import_"]


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A file, a folder, or a folder of such.", show_default=False
        ),
    ],
    form: Annotated[
        Optional[str],
        typer.Option("--format", help="Which format it is; by default that is found out."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Let pickles run what they name. They can do all you can."),
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import checkpoints of other systems into a root, which is made if it is not there.

    The source is only read, and no code in it is run. What was imported before is not written again. What
    could not be imported is named with its reason, and ends with 1. Needs torch.

    \b
    Examples:
      weightslab import old_root --dry-run
      weightslab import lightning_logs --root root_experiment
      weightslab import model.pt --format torch --json
    """
    from weightslab.formats import import_root

    opened = open_new_root(root, write=not dry_run)
    with render.waiting(f"importing {source}"):
        report = import_root(source, opened, format=form, trust=trust, dry_run=dry_run)
    if as_json:
        told = {k: v for k, v in report.to_dict().items() if not k.startswith("schema")}
        render.show_json("import", told)
    else:
        render.say(*str(report).splitlines())
        if dry_run:
            render.note("nothing was changed")
    if not report.is_complete:
        raise typer.Exit(1)
