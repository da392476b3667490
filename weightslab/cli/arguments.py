"""Arguments and options that several commands share, and the completion of hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from weightslab.cli.roots import VARIABLE, open_root

if TYPE_CHECKING:
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.root import CheckpointRoot

__all__ = ["NAMES", "chosen", "complete_reference", "experiment_of"]

_MAX_COMPLETED: Final = 100
NAMES: Final = "HASH, HASH@STEP, HASH@STEP.rN, HASH@latest, HASH@best:METRIC[:max], latest"


def complete_reference(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the hashes that begin with what was typed; after `@` the steps of the experiment."""
    try:
        above = ctx.parent.params if ctx.parent else {}  # `weightslab --root FOLDER show ...`
        root = open_root(ctx.params.get("root") or above.get("root"))
        head, at, tail = incomplete.partition("@")
        if not at:
            return root.catalog.exp_hashes(head.lower())[:_MAX_COMPLETED]
        steps = sorted({entry.name.step for entry in root.checkpoints(head)}, reverse=True)
    except Exception:  # noqa: BLE001 - a shell that completes has no place for an error
        return []
    words = ["latest", *map(str, steps)]
    return [f"{head}@{word}" for word in words if word.startswith(tail)][:_MAX_COMPLETED]


RootOption = Annotated[
    Optional[Path],
    typer.Option(
        "--root", help=f"The root folder; by default that of {VARIABLE}, else root_experiment."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Change nothing; tell what would be done.")
]
WhereOption = Annotated[
    Optional[str],
    typer.Option("--where", "-w", help="Only those for which this filter is true."),
]
OrderOption = Annotated[
    Optional[str],
    typer.Option("--order", "-o", help="Keys to order by, joined by commas; -KEY is descending."),
]
PlotOption = Annotated[
    Optional[Path],
    typer.Option("--plot", help="Draw it into this PNG file (extra `plot`)."),
]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help=f"{NAMES}.", autocompletion=complete_reference, show_default=False
    ),
]
ReferencesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="REF...", help=f"{NAMES}.", autocompletion=complete_reference, show_default=False
    ),
]
OptionalReference = Annotated[
    Optional[str],
    typer.Argument(
        metavar="[REF]", help=f"{NAMES}.", autocompletion=complete_reference, show_default=False
    ),
]


def experiment_of(root: CheckpointRoot, reference: str) -> str:
    """Return the full hash of the experiment that a reference is about.

    Raises: ValueError; ExperimentNotFoundError, CheckpointNotFoundError.
    """
    from weightslab.engine.reference import parse_reference

    told = parse_reference(reference)
    if told.exp_hash is not None:
        return root.get_hash(told.exp_hash)
    return root.at(reference).name.exp_hash


def chosen(root: CheckpointRoot, reference: str) -> tuple[str, CheckpointName | None]:
    """Return the experiment, and the checkpoint unless the experiment as a whole is meant.

    Raises: ValueError; ExperimentNotFoundError, CheckpointNotFoundError.
    """
    from weightslab.engine.reference import parse_reference

    if parse_reference(reference).is_experiment:
        return experiment_of(root, reference), None
    entry: CheckpointEntry = root.at(reference)
    return entry.name.exp_hash, entry.name


def has_revision(reference: str) -> bool:
    """Tell whether a reference names a revision."""
    from weightslab.engine.reference import parse_reference

    return parse_reference(reference).revision is not None
