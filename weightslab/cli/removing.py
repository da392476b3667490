"""`weightslab rm`: checkpoints go to the trash, or for good; experiments go for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    DryRunOption,
    ReferencesArgument,
    RootOption,
    YesOption,
    chosen,
    has_revision,
)
from weightslab.cli.listing import reference_of
from weightslab.cli.roots import open_root
from weightslab.cli.texts import counted, size
from weightslab.engine.errors import PinnedError

if TYPE_CHECKING:
    from weightslab.engine.root import CheckpointRoot

__all__ = ["rm"]


class _Wanted(NamedTuple):
    """What is to go: an experiment, or one step of it."""

    exp_hash: str
    step: int | None
    revision: int | None
    num_checkpoints: int
    size_bytes: int

    @property
    def label(self) -> str:
        if self.step is None:
            return f"experiment {self.exp_hash}"
        return f"checkpoint {reference_of(self.exp_hash, self.step, self.revision or 1)}"


def rm(
    refs: ReferencesArgument,
    forever: Annotated[
        bool, typer.Option("--forever", help="Delete checkpoints at once, past the trash.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete what is pinned, too.")] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    root: RootOption = None,
) -> None:
    """Delete checkpoints, or whole experiments.

    A checkpoint goes to the trash, from where `restore` brings it back. A whole experiment is deleted
    for good, its notes included. Without a revision all revisions of a step go.

    \b
    Examples:
      weightslab rm 3f2a@100
      weightslab rm 3f2a@100 3f2a@200 --forever --yes
      weightslab rm 3f2a --dry-run
    """
    opened = open_root(root, write=not dry_run)
    wanted = list(dict.fromkeys(_wanted(opened, ref) for ref in refs))
    for one in wanted:
        render.say(
            f"{one.label}: {counted(one.num_checkpoints, 'checkpoint')}, {size(one.size_bytes)}"
        )
    if dry_run:
        render.note("nothing was changed")
        return
    if not render.confirm(_question(wanted, forever=forever), yes=yes):
        raise typer.Exit(1)
    try:
        for one in wanted:
            _remove(opened, one, forever=forever, force=force)
    except PinnedError as error:
        error.hint = "pin REF --remove takes the pin back; --force deletes it as it is"
        raise


def _wanted(root: CheckpointRoot, ref: str) -> _Wanted:
    exp_hash, name = chosen(root, ref)
    entries = root.catalog.checkpoints(exp_hash)
    step = revision = None
    if name is not None:
        step, revision = name.step, name.revision if has_revision(ref) else None
        entries = [
            e for e in entries if e.name.step == step and revision in (None, e.name.revision)
        ]
    return _Wanted(exp_hash, step, revision, len(entries), sum(e.size_bytes for e in entries))


def _question(wanted: list[_Wanted], *, forever: bool) -> str:
    good = [one for one in wanted if one.step is None or forever]
    count = sum(one.num_checkpoints for one in wanted)
    if not good:
        return f"move {counted(count, 'checkpoint')} to the trash?"
    experiments = sum(one.step is None for one in wanted)
    words = [counted(experiments, "experiment")] if experiments else []
    words.append(counted(sum(one.num_checkpoints for one in good), "checkpoint"))
    return f"delete {' with '.join(words)} for good?"


def _remove(root: CheckpointRoot, one: _Wanted, *, forever: bool, force: bool) -> None:
    if one.step is None:
        gone = root.delete(one.exp_hash, force=force)
        render.say(f"deleted {one.exp_hash}, {counted(len(gone), 'checkpoint')}")
    elif forever:
        for stem in root.delete(one.exp_hash, step=one.step, revision=one.revision, force=force):
            render.say(f"deleted {stem}")
    else:
        for stem in root.trash.put(one.exp_hash, one.step, revision=one.revision, force=force):
            render.say(f"in the trash: {stem}")
