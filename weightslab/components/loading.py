"""Loading: from a question about a checkpoint to live objects that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.components import choosing
from weightslab.components.live_objects import parts_of
from weightslab.components.session import is_writer, unwrapped, world_of
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    FormatError,
    IntegrityError,
    LockedError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import decode
from weightslab.engine.loading.restoring import restore, summary
from weightslab.engine.loading.target import RestoreTarget
from weightslab.engine.repository import layout
from weightslab.engine.repository.claim import reading
from weightslab.engine.saving.trail import TRAIL, StepRecord, trail_from_tree
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.components.live_objects import LoadTarget
    from weightslab.components.session import Session
    from weightslab.engine.loading.options import LoadOptions
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.manifest import Manifest

__all__ = ["load_entry", "load_newest", "load_step", "trail_of"]


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
            for e in root.catalog.checkpoints(root.get_hash(wanted))
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
        trail = trail_of(manifest)
        report = restore(root.store, manifest, _restore_target(session, target), options)
    session.ancestry.settle(unwrapped(target.live), manifest)
    session.live.remember_model(target.live)
    if target.optimizers is not None and target.given:
        session.live.remember_optimizer(target.optimizers)
    name = manifest.name
    session.progress.note_loaded(name.exp_hash, name.step, trail if target.load_optimizer else ())
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


def trail_of(manifest: Manifest) -> list[StepRecord]:
    """Return what the loop told of the steps that led to a checkpoint.

    Raises: FormatError.
    """
    training = manifest.state.get("training")
    tree = training.get(TRAIL) if isinstance(training, dict) else None
    return trail_from_tree(decode(tree, path=TRAIL))


def _restore_target(session: Session, target: LoadTarget) -> RestoreTarget:
    """Put together what was passed, what is tracked and what the ledger holds."""
    tracked, found = {}, {}
    if target.load_optimizer:
        tracked, found = session.tracking.tracked(), session.tracking.found()
    rank, world_size = world_of()
    return RestoreTarget(
        models=parts_of(target.live),
        optimizers=target.optimizers,
        tracked=tracked | found,
        found=frozenset(found),
        load_optimizer=target.load_optimizer,
        given=target.given,
        rank=rank,
        world_size=world_size,
    )
