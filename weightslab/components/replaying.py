"""Replaying: the last steps before a checkpoint are taken again, from the checkpoint before it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import closing
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from weightslab.components.live_objects import parts_of
from weightslab.components.loading import trail_of
from weightslab.engine.replay import ReplayReport, first_difference, state_difference
from weightslab.engine.repository.commit import number_draft
from weightslab.engine.resume import why_not_resumable
from weightslab.engine.saving.drafting import CheckpointFacts, make_draft
from weightslab.engine.saving.trail import TRAIL, Trail

if TYPE_CHECKING:
    from collections.abc import Generator

    from weightslab.components.live_objects import LoadTarget
    from weightslab.components.session import Session
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.resume import Resumed
    from weightslab.engine.root import CheckpointRoot

__all__ = ["check_verification", "find_previous", "replay"]

Verification = tuple[Callable[..., Any], int]


def check_verification(value: Any, *, load_random: bool) -> Verification | None:
    """Return `resume_verification` as (train_step, k); None if it was not asked for.

    Raises: TypeError, ValueError.
    """
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not callable(value[0]):  # noqa: PLR2004
        raise TypeError(f"resume_verification is (train_step, k), not {value!r:.60}")
    train_step, steps = value
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"k of resume_verification is an int >= 1, not {steps!r:.40}")
    if steps < 1:
        raise ValueError(f"k of resume_verification is an int >= 1, not {steps}")
    if not load_random:
        raise ValueError(
            "resume_verification needs load_random=True: without, no step is repeatable"
        )
    return train_step, steps


def find_previous(root: CheckpointRoot, manifest: Manifest) -> tuple[Manifest | None, str]:
    """Return the checkpoint before one, from which its training can be repeated; or None, and why.

    Raises: StorageError.
    """
    name, parent = manifest.name, manifest.parent
    if parent.kind != "checkpoint" or parent.step is None or parent.exp_hash is None:
        return None, f"{name.stem} is the first checkpoint of its model"
    if parent.exp_hash != name.exp_hash or parent.exact is not True:
        return None, f"{name.stem} was not trained in one experiment from the checkpoint before it"
    before = root.find_checkpoint(parent.exp_hash, parent.step, revision=parent.revision)
    if before is None or before.damaged is not None:
        why = "is gone" if before is None else "is damaged"
        return None, f"the checkpoint before it, step {parent.step}, {why}"
    found = root.manifest(before)
    why_not = why_not_resumable(found)
    if why_not is not None:
        return None, f"the checkpoint before it, step {parent.step}: {why_not}"
    return found, ""


def replay(
    session: Session,
    target: LoadTarget,
    manifest: Manifest,
    begin: Resumed,
    verification: Verification,
) -> ReplayReport:
    """Take steps again, and compare them with what was recorded.

    The live objects hold the checkpoint before; afterwards they hold whatever came of the steps.

    Args:
        session: what the manager works with; saves nothing meanwhile.
        target: the live objects.
        manifest: the checkpoint that the steps led to.
        begin: the checkpoint before it, as resumed.
        verification: (train_step, k).
    """
    train_step, num_steps = verification
    end = manifest.name.step
    again = Trail(limit=num_steps)
    session.replay = again
    reached = begin.step
    try:
        with closing(_steps_of(train_step, begin)) as steps:
            for number, _ in enumerate(islice(steps, num_steps), start=1):
                told = again.last_step
                reached = begin.step + number if told is None else told
                if reached >= end:
                    break
    finally:
        session.replay = None
    exp_hash = manifest.name.exp_hash
    recorded, records = trail_of(manifest), again.records(exp_hash)
    steps_known = {record.step for record in recorded}
    difference = first_difference(recorded, records)
    is_whole = reached == end
    if difference is None and is_whole:
        difference = _compare_state(session, target, manifest)
    compared = sum(record.step in steps_known for record in records)
    why_not = None
    if not compared and not is_whole:
        why_not = (
            f"nothing was recorded of the {num_steps} steps after step {begin.step}: call "
            f"manager.step() for each step, or take all {end - begin.step} again"
        )
    return ReplayReport(
        from_step=begin.step,
        to_step=reached,
        num_compared=compared,
        state_compared=is_whole,
        difference=difference,
        why_not=why_not,
    )


def _steps_of(train_step: Callable[..., Any], begin: Resumed) -> Generator[None, None, None]:
    """Yield after each step."""
    if inspect.isgeneratorfunction(train_step):
        for _ in train_step(begin):
            yield
        return
    for step in count(begin.step + 1):
        train_step(step)
        yield


def _compare_state(session: Session, target: LoadTarget, manifest: Manifest) -> str | None:
    """Lay the live objects out as for a save, and compare every tensor and value of the state."""
    facts = CheckpointFacts(
        exp_hash=manifest.name.exp_hash,
        experiment_digest=manifest.experiment_digest,
        step=manifest.name.step,
        metadata=None,
        metrics={},
    )
    tracked = session.tracking.everything()
    draft = make_draft(parts_of(target.live), target.optimizers or {}, facts, tracked)
    return state_difference(manifest, number_draft(draft).content(), ignored=(TRAIL, "progress"))
