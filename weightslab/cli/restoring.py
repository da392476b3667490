"""`weightslab restore`: what is in the trash, and back from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import DryRunOption, JsonOption, RootOption
from weightslab.cli.listing import reference_of
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import inert, size, when
from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.reference import parse_reference

if TYPE_CHECKING:
    from weightslab.engine.repository.trash import TrashEntry
    from weightslab.engine.root import CheckpointRoot

__all__ = ["restore"]

_COLUMNS = (
    Column("CHECKPOINT", least=8, has_mark=False),
    Column("TRASHED"),
    Column("SIZE", is_right=True, rank=1),
    Column("WHY", least=8),
)


def complete_trashed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what is in the trash and begins with what was typed."""
    try:
        found = [_label(entry) for entry in open_root(ctx.params.get("root")).trash.list()]
    except Exception:  # noqa: BLE001 - a shell that completes has no place for an error
        return []
    return [label for label in found if label.startswith(incomplete)]


def restore(
    refs: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[REF...]",
            help="HASH@STEP, HASH@STEP.rN.",
            autocompletion=complete_trashed,
            show_default=False,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring checkpoints back from the trash; without REF, list what is in it.

    \b
    Examples:
      weightslab restore
      weightslab restore 3f2a@100
    """
    opened = open_root(root, write=bool(refs) and not dry_run)
    entries = opened.trash.list()
    if not refs:
        _list(opened, entries, as_json=as_json)
        return
    wanted = [_find(entries, ref) for ref in refs]
    back = []
    for entry in wanted:
        if not dry_run:
            opened.restore(entry)
        back.append(_label(entry))
        if not as_json:
            render.say(f"{'would be back' if dry_run else 'is back'}: {back[-1]}")
    if as_json:
        content = {"root": str(opened.path), "dry_run": dry_run, "restored": back}
        render.show_json("restore", content)


def _find(entries: list[TrashEntry], ref: str) -> TrashEntry:
    """Return the entry that a reference names; of several the one that was trashed last."""
    told = parse_reference(ref)
    if told.exp_hash is None or told.step is None:
        raise ValueError(f"{ref!r:.80} is no checkpoint in the trash: give HASH@STEP")
    found = [
        entry
        for entry in entries
        if entry.name.exp_hash.startswith(told.exp_hash.lower())
        and entry.name.step == told.step
        and told.revision in (None, entry.name.revision)
    ]
    hashes = {entry.name.exp_hash for entry in found}
    if len(hashes) > 1:
        raise ValueError(
            f"{told.exp_hash!r} is the beginning of several: {', '.join(sorted(hashes))}"
        )
    if not found:
        raise ObjectNotFoundError(
            f"{inert(ref)} is not in the trash", hint="weightslab restore lists it"
        )
    return max(found, key=lambda e: e.trashed_at.timestamp() if e.trashed_at else 0.0)


def _list(root: CheckpointRoot, entries: list[TrashEntry], *, as_json: bool) -> None:
    if as_json:
        content: dict[str, Any] = {"root": str(root.path), "trash": [_plain(e) for e in entries]}
        render.show_json("restore", content)
    elif not entries:
        render.note("the trash is empty")
    else:
        rows = [
            [_label(e), when(e.trashed_at), size(e.size_bytes), inert(e.reason)] for e in entries
        ]
        render.say_table(_COLUMNS, rows)


def _label(entry: TrashEntry) -> str:
    return reference_of(entry.name.exp_hash, entry.name.step, entry.name.revision)


def _plain(entry: TrashEntry) -> dict[str, Any]:
    return {
        "exp_hash": entry.name.exp_hash,
        "step": entry.name.step,
        "revision": entry.name.revision,
        "trashed_at": entry.trashed_at.isoformat() if entry.trashed_at else None,
        "reason": entry.reason,
        "size_bytes": entry.size_bytes,
        "is_damaged": entry.is_damaged,
    }
