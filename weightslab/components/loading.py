"""Loading: from a question about a checkpoint to live objects that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.components import choosing
from weightslab.components.live_objects import parts_of
from weightslab.components.session import is_writer, unwrapped
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    FormatError,
    IntegrityError,
    LockedError,
    UnsupportedVersionError,
)
from weightslab.engine.loading.restoring import restore, summary
from weightslab.engine.repository import layout
from weightslab.engine.repository.claim import reading
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.components.live_objects import LoadTarget
    from weightslab.components.session import Session
    from weightslab.engine.loading.options import LoadOptions
    from weightslab.engine.repository.catalog import CheckpointEntry

__all__ = ["load_newest", "load_step"]


def load_newest(
    session: Session,
    exp_hash: str | None,
    find_target: Callable[[], LoadTarget],
    options: LoadOptions,
) -> dict[str, Any] | None:
    """Load the newest valid checkpoint, see `CheckpointManagerV2.load_latest_checkpoint`."""
    root = session.root
    entries = choosing.candidates(root, exp_hash, session.current_hash)
    if not entries:
        return None
    target = find_target()  # not before: without checkpoints nobody needs a model
    skipped: list[dict[str, Any]] = []
    for entry in entries:
        try:
            return _load_or_follow(session, entry, target, options) | {"skipped": skipped}
        except UnsupportedVersionError:  # noqa: PERF203 - not damaged: newer than this package
            raise
        except choosing.PASSED_OVER as error:
            skipped.append(choosing.skip(root, entry, error, record=is_writer()))
    raise IntegrityError(
        f"all {len(skipped)} checkpoints are damaged; the newest: {skipped[0]['reason']}",
        hint="manager.root.verify() lists what is wrong with each",
    )


def load_step(
    session: Session,
    step: int,
    exp_hash: str | None,
    find_target: Callable[[], LoadTarget],
    options: LoadOptions,
    *,
    revision: int | None,
) -> dict[str, Any]:
    """Load the checkpoint of a step, see `CheckpointManagerV2.load_checkpoint`."""
    root = session.root
    wanted = choosing.find_hash(root, exp_hash, session.current_hash)
    if wanted is None:
        raise ExperimentNotFoundError(f"{root.path} has no checkpoints to load from")
    entry = root.get_checkpoint(wanted, step, revision=revision)
    target = find_target()
    try:
        load = load_entry if revision is not None else _load_or_follow
        return load(session, entry, target, options) | {"skipped": []}
    except (IntegrityError, FormatError) as error:
        others = [
            e.name.revision
            for e in root.checkpoints(wanted)
            if e.name.step == step and e.name != entry.name and e.damaged is None
        ]
        if others and error.hint is None:
            error.hint = f"other revisions of step {step}: {others}; load one by revision="
        raise


def _load_or_follow(
    session: Session, entry: CheckpointEntry, target: LoadTarget, options: LoadOptions
) -> dict[str, Any]:
    """Load a checkpoint, or the revision that has taken its place since it was listed (thinning)."""
    try:
        return load_entry(session, entry, target, options)
    except (CheckpointNotFoundError, LockedError):
        name = entry.name
        entries = session.root.catalog.checkpoints(name.exp_hash)
        later = [e for e in entries if e.name.step == name.step and e.name.revision > name.revision]
        if not later:
            raise
        newest = max(later, key=lambda found: found.name.revision)
        return load_entry(session, newest, target, options)


def load_entry(
    session: Session, entry: CheckpointEntry, target: LoadTarget, options: LoadOptions
) -> dict[str, Any]:
    """Load one listed checkpoint into the target; its weights descend from there on.

    Returns: what a load tells the caller, without `skipped`.
    """
    root = session.root
    with reading(root.store, entry.name) as manifest:
        found = summary(manifest, folder=session.path(layout.model_folder(manifest.name.exp_hash)))
        report = restore(
            root.store,
            manifest,
            parts_of(target.live),
            target.optimizers,
            load_optimizer=target.load_optimizer,
            given=target.given,
            options=options,
        )
    session.ancestry.settle(unwrapped(target.live), manifest)
    session.live.remember_model(target.live)
    name = manifest.name
    if is_writer() and not root.read_only:
        record_event(
            root,
            "checkpoint_loaded",
            exp_hash=name.exp_hash,
            step=name.step,
            revision=name.revision,
            into=session.current_hash,
        )
    return found | {"report": report}
