"""Tracked objects and the random state on their way back: who gets which state, and who none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError, StateMismatchError
from weightslab.engine.training.state import (
    Progress,
    is_data_position,
    order_of,
    parameter_names,
    plan_random_restore,
    plan_tracked_restore,
)

if TYPE_CHECKING:
    from weightslab.engine.loading.options import LoadOptions
    from weightslab.engine.loading.target import RestoreTarget
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.training.state import RestorePlan

__all__ = ["check_names", "plan_random", "plan_tracked", "progress_of"]

logger = logging.getLogger(__name__)


def progress_of(manifest: Manifest) -> Progress:
    """Return how far the training had come; checkpoints of older versions know the step alone.

    Raises: FormatError.
    """
    tree = manifest.state.get("training")
    found = tree.get("progress") if isinstance(tree, dict) else None
    return Progress.from_tree(found, step=manifest.name.step)


def saved_names(manifest: Manifest) -> list[str] | None:
    """Return the names of the tracked objects; None if the checkpoint is one without any such list.

    That is a checkpoint of weights alone, or of a version that tracked nothing.
    """
    tree = manifest.state.get("training")
    tracked = tree.get("tracked") if isinstance(tree, dict) else None
    if tracked is None:
        return None
    if not isinstance(tracked, dict):
        raise FormatError(f"the training state of {manifest.name.stem} is not in order")
    return sorted(tracked)


def check_names(manifest: Manifest, target: RestoreTarget, options: LoadOptions) -> dict[str, str]:
    """Compare the names on both sides, before anything is read.

    Returns: saved name -> why it is not restored.
    Raises: StateMismatchError naming both sides, where the load is strict.
    """
    saved = saved_names(manifest)
    if not target.load_optimizer:
        return dict.fromkeys(saved or [], "load_optimizer=False")
    missing = sorted(set(target.tracked) - set(saved or []))
    unexpected = sorted(set(saved or []) - set(target.tracked))
    if unexpected and not target.tracked and not target.optimizers:
        logger.warning(
            "checkpoint %s holds the state of %s, but nothing is tracked and there is no optimizer; "
            "only the weights are loaded (load_optimizer=False silences this)",
            manifest.name.stem,
            ", ".join(unexpected),
        )
    elif options.strict and (unexpected or _were_asked_for(missing, saved, target)):
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds the tracked objects {_listed(saved)}, the live "
            f"ones are {_listed(list(target.tracked))}",
            missing=missing,
            unexpected=unexpected,
            hint="track the same objects under the same names; strict=False restores those in both, "
            "load_optimizer=False none",
        )
    elif missing:
        logger.warning(
            "checkpoint %s holds no state of %s: left as they are",
            manifest.name.stem,
            ", ".join(missing),
        )
    return dict.fromkeys(unexpected, "no tracked object of this name")


def _were_asked_for(missing: list[str], saved: list[str] | None, target: RestoreTarget) -> bool:
    if saved is None:
        return any(name not in target.found for name in missing)
    return bool(missing)


def _listed(names: list[str] | None) -> str:
    return ", ".join(sorted(names)) if names else "(none)"


def plan_tracked(
    manifest: Manifest, saved: dict[str, Any], target: RestoreTarget, options: LoadOptions
) -> tuple[dict[str, RestorePlan], dict[str, str]]:
    """Return name -> plan, in the order in which they are carried out, and name -> why there is none.

    Raises: StateMismatchError naming the object, where the load is strict.
    """
    names = parameter_names(target.models.values())
    world_size = progress_of(manifest).world_size
    plans: dict[str, RestorePlan] = {}
    left_out: dict[str, str] = {}
    common = [name for name in target.tracked if name in saved]
    for name in sorted(common, key=lambda name: order_of(target.tracked[name])):
        item = target.tracked[name]
        try:
            if is_data_position(item):
                _check_world(name, world_size, target.world_size)
            plans[name] = plan_tracked_restore(
                name, item, saved[name], names=names, cast=options.cast
            )
        except StateMismatchError as error:
            if options.strict:
                raise
            logger.warning("%s stays as it is: %s", name, error)
            left_out[name] = str(error)
    return plans, left_out


def plan_random(
    manifest: Manifest, training: dict[str, Any] | None, target: RestoreTarget, options: LoadOptions
) -> RestorePlan | None:
    """Return the plan for the random state; None if it stays as it is, which is logged.

    Raises: StateMismatchError if the checkpoint has none, or one of another number of processes,
        where the load is strict.
    """
    try:
        plan = _random_of(manifest, training or {}, target)
    except StateMismatchError as error:
        if options.strict:
            raise
        logger.warning("the random state stays as it is: %s", error)
        return None
    if target.rank:
        logger.warning(
            "the random state of checkpoint %s is that of rank 0; rank %d keeps its own",
            manifest.name.stem,
            target.rank,
        )
        return None
    if plan.unexpected:
        logger.warning(
            "checkpoint %s holds random states of devices that are not here, which are left out: %s",
            manifest.name.stem,
            ", ".join(plan.unexpected),
        )
    return plan


def _random_of(manifest: Manifest, training: dict[str, Any], target: RestoreTarget) -> RestorePlan:
    _check_world("the random state", progress_of(manifest).world_size, target.world_size)
    if "random" not in training:
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds no random state",
            hint="it was saved with save_optimizer=False, or by an older version; load it without "
            "load_random=True, and seed anew",
        )
    return plan_random_restore(training["random"])


def _check_world(what: str, saved: int, live: int) -> None:
    if saved != live:
        raise StateMismatchError(
            f"{what} was saved with a world size of {saved} and cannot go on with {live}: each process "
            "would have another share of it",
            hint=f"start {saved} processes, or do without it",
        )
