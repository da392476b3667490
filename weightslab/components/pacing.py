"""Pacing: saves at the moments that a save policy names.

`step` is called once for each step of a training loop; `close` once, when the use of the manager
ends. Both save through `CheckpointManagerV2.save_model_checkpoint`, which is passed to them: this
object keeps no manager alive.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.components.live_objects import Given, named_optimizers
from weightslab.components.session import is_writer
from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.saving.drafting import check_step
from weightslab.engine.saving.held_signals import HeldSignals
from weightslab.engine.saving.policies import (
    AtExit,
    FixedInterval,
    InitialSave,
    Moment,
    OnException,
    OnPreemption,
    SpecificSteps,
    TimeInterval,
    policies_in,
    signal_name,
)
from weightslab.engine.saving.step_watch import StepWatch

if TYPE_CHECKING:
    from weightslab.components.identifying import Identification
    from weightslab.components.session import Session
    from weightslab.engine.saving.policies import SavePolicy
    from weightslab.engine.saving.trail import Trail
    from weightslab.engine.training.sampler import ResumableSampler

__all__ = ["Pacer"]

logger = logging.getLogger(__name__)
Save = Callable[..., Path]

# none of these looks at `Moment.has_checkpoint`, which takes a question to the catalog
_BLIND: Final = (FixedInterval, TimeInterval, SpecificSteps, OnPreemption, OnException, AtExit)
# none of these saves once the loop is over; others are asked when the interpreter ends
_IN_THE_LOOP: Final = (FixedInterval, TimeInterval, SpecificSteps, InitialSave, OnException)
_GIVEN_BY_STEP: Final = frozenset({"model", "optimizer", "step", "metrics", "metadata"})
_unfinished: dict[Pacer, Save] = {}


class Pacer:
    """Decides for one manager when to save, and saves.

    Args:
        session: what the manager works with.
        policy: when to save; None: never.
    Raises: TypeError for something that is no policy; ValueError for a policy where nothing may be
        written; CheckpointError for signals outside of the main thread.
    """

    def __init__(self, session: Session, policy: SavePolicy | None) -> None:
        parts = () if policy is None else tuple(policies_in(policy))
        if parts and session.read_only:
            raise ValueError("save_policy and read_only=True contradict each other; leave one out")
        self._session = session
        self._progress = session.progress
        self._policy = policy
        self._needs_look = any(not isinstance(part, _BLIND) for part in parts)
        self.saves_at_exit = any(not isinstance(part, _IN_THE_LOOP) for part in parts)
        self._watch = StepWatch()
        self._model, self._optimizer = Given(), Given()
        self._is_given = False
        self._current: Identification | None = None
        self._exp_hash = ""
        self._has_checkpoint = False
        self._samplers: list[ResumableSampler] = []
        self._owed: str | None = None
        self._is_finished = False
        self._pid = os.getpid()
        on_signals = [part for part in parts if isinstance(part, OnPreemption)]
        self._held = HeldSignals(on_signals, self._progress.clock)

    def finish_at_exit(self, save: Save) -> None:
        """Have the last step saved when the interpreter ends, if a policy may want that."""
        if self.saves_at_exit:
            _unfinished[self] = save

    # ------------------------------------------------------------ in the loop
    def step(
        self,
        save: Save,
        step: int,
        model: Any,
        optimizer: Any,
        facts: dict[str, Any],
        uids: Any = None,
    ) -> Path | None:
        """Note that `step` is complete, and save it if the policy says so.

        Args:
            save: `save_model_checkpoint` of the manager.
            step: the step.
            model, optimizer: None: those of the ledger, or given last.
            facts: other arguments of `save`.
            uids: of the batches of this step; None: those of the tracked samplers.
        Returns: what `save` returned; None if nothing was saved.
        """
        # Written for speed: each call that can be spared is, since most steps save nothing.
        session, progress, held = self._session, self._progress, self._held
        if session.is_closed or os.getpid() != self._pid or self._policy is None:
            session.check_writable("save a checkpoint", wait=False)
        if type(step) is not int or step < 0:
            step = check_step(step, None)
        if len(facts) > 2:  # noqa: PLR2004 - more than metrics and metadata
            _check_names(save, facts)
        if model is not None or optimizer is not None or self._is_given:
            self._take(model, optimizer)
        if self._policy is None:
            session.advise(
                "manager.step() saves nothing without a policy: "
                "CheckpointManagerV2(..., save_policy=FixedInterval(100))"
            )
            return None
        if session.current is not self._current or self._current is None:
            self._enter(session.get_current("save a checkpoint"))
        has_order = bool(held.arrived) and self._may_obey()
        if not has_order:
            session.saver.check()  # before anything is noted: the same call may be made again
        previous = progress.step
        progress.complete(self._exp_hash, step, facts)
        if progress.trail.is_open:
            self._note(progress.trail, self._exp_hash, step, facts["metrics"], uids)
        self._watch.mark()
        held.holds = True
        if has_order:
            return self._obey(save)
        saved = progress.saved
        moment = Moment(
            step,
            previous,
            self._has_checkpoint or (saved is not None and saved[0] == self._exp_hash),
            progress.clock() - progress.saved_at,
        )
        reason = self._policy.find_reason(moment) or self._owed
        return None if reason is None else self._save(save, reason)

    def note_again(self, trail: Trail, step: int, metrics: Any, uids: Any) -> None:
        """Note a step that is taken again to be compared; nothing is saved."""
        exp_hash = self._session.get_current("take a step again").exp_hash
        self._note(trail, exp_hash, check_step(step, None), metrics, uids)

    def _note(self, trail: Trail, exp_hash: str, step: int, metrics: Any, uids: Any) -> None:
        """Note the step in a trail."""
        if uids is not None:
            uids = [uids.tolist() if hasattr(uids, "tolist") else tuple(uids)]
        else:
            if trail.is_empty:
                self._samplers = self._session.tracking.samplers()
            uids = [s.last_batch for s in self._samplers if s.last_batch is not None] or None
        trail.note(exp_hash, step, metrics, uids)

    def _take(self, model: Any, optimizer: Any) -> None:
        """Remember the objects of this call."""
        self._is_given = model is not None or optimizer is not None
        if model is None:
            self._model.forget()
        elif not self._model.is_same(model):
            self._session.live.remember_model(model)
            self._model.set(model)
        if optimizer is None:
            self._optimizer.forget()
        elif not self._optimizer.is_same(optimizer):
            self._session.live.remember_optimizer(optimizer)
            self._optimizer.set(optimizer)
            self._watch.watch(named_optimizers(optimizer).values())

    def _enter(self, current: Identification) -> None:
        """Look at the experiment that became current since the last step."""
        if self._needs_look:
            self._session.check_open()  # what is under way counts
            latest = self._session.root.catalog.latest(current.exp_hash)
            self._has_checkpoint = latest is not None
        self._current, self._exp_hash = current, current.exp_hash
        optimizer = self._session.live.last_optimizer()
        if optimizer is not None:
            self._watch.watch(named_optimizers(optimizer).values())

    def _save(self, save: Save, reason: str, *, at_once: bool = False) -> Path:
        progress, facts = self._progress, dict(self._progress.facts)
        exp_hash, step = self._exp_hash, progress.step
        assert step is not None
        model, optimizer = self._model.get(), self._optimizer.get()
        for what, held in (("model", self._model), ("optimizer", self._optimizer)):
            if held.get() is None and not held.is_empty:
                raise ObjectNotFoundError(
                    f"step {step} cannot be saved: the {what} that was given to step() is gone",
                    hint="keep it alive until the manager is closed: use the manager in a with block",
                )
        if (
            optimizer is None
            and facts.get("save_optimizer", True)
            and "optimizer_name" not in facts
        ):
            optimizer = self._session.live.last_optimizer()
        self._owed = reason  # a save that fails is due again at the next step
        with self._session.saver.occasion(reason, at_once=at_once):
            path = save(model, step=step, optimizer=optimizer, **facts)
        self._owed = None
        if not is_writer():  # otherwise the saver has noted it
            progress.note_saved(exp_hash, step)
        return path

    # ------------------------------------------------------------ signals
    def _may_obey(self) -> bool:
        """Tell whether this process acts on signals: others wait for the one that saves.

        A rank that ended earlier would leave rank 0 alone in a collective, unable to save. It goes
        on until rank 0 is gone, which its next collective finds out.
        """
        if is_writer():
            return True
        for number in list(self._held.arrived):
            if self._held.policy_of(number).then == "continue":
                self._held.arrived.pop(number, None)
        return False

    def _obey(self, save: Save) -> Path | None:
        """Commit the step that is complete, and pass on the signals that came meanwhile."""
        progress, held = self._progress, self._held
        number, arrived_at = next(iter(held.arrived.items()))
        names = " and ".join(map(signal_name, held.arrived))
        policy = held.policy_of(number)
        passed = progress.clock() - arrived_at
        if passed + progress.commit_seconds > policy.grace_seconds:
            logger.warning(
                "%s came %.1f s ago and the last save took %.1f s, so this one is likely to be late "
                "for the %g s granted; saving step %s all the same",
                names,
                passed,
                progress.commit_seconds,
                policy.grace_seconds,
                progress.step,
            )
        self._session.saver.finish()  # the save under way may be of this step, and may fail
        path = None if progress.is_saved() else self._save(save, names, at_once=True)
        logger.warning(
            "step %s is on disk, %.1f s after %s",
            progress.step,
            progress.clock() - arrived_at,
            names,
        )
        held.deliver()
        return path

    # ------------------------------------------------------------ the end
    def close(self, save: Save, error: BaseException | None) -> None:
        """Save the last step if a policy says so, close the session, and pass on held signals.

        Args:
            save: `save_model_checkpoint` of the manager.
            error: what leaves the `with` block; nothing else is raised in its place.
        """
        try:
            self.finish(save, error)
        finally:
            self._session.close()
        if self._held.arrived and os.getpid() == self._pid:
            if error is None:
                self._held.deliver()
            else:
                names = " and ".join(map(signal_name, self._held.arrived))
                logger.warning("%s came, and the process ends by %r", names, error)

    def finish(self, save: Save, error: BaseException | None = None) -> None:
        """Save the last step if a policy says so, and let go of signals and optimizers; once."""
        _unfinished.pop(self, None)
        if self._is_finished or os.getpid() != self._pid or self._policy is None:
            return
        self._is_finished = True
        try:
            self._finish(save, error)
        except Exception:
            if error is None:
                raise
            logger.exception("step %s could not be saved", self._progress.step)
        finally:
            self._held.release()
            self._watch.close()

    def _finish(self, save: Save, error: BaseException | None) -> None:
        progress, session = self._progress, self._session
        session.saver.finish()
        if progress.is_saved() or not is_writer():
            return
        is_failure = error is not None and not isinstance(error, (SystemExit, GeneratorExit))
        reason = self._find_last_reason("exception" if is_failure else "exit")
        if reason is None:
            return
        why = self._watch.find_change()
        if session.current_hash != progress.exp_hash:
            why = f"it belongs to experiment {progress.exp_hash}, which is not current any more"
        if why is not None:
            logger.warning("step %s is not saved at the end (%s): %s", progress.step, reason, why)
            return
        if is_failure:
            progress.facts = progress.facts | {
                "metadata": _marked(progress.facts.get("metadata"), saved_on="exception")
            }
            reason = f"{reason} ({type(error).__name__})"
        self._save(save, reason, at_once=True)

    def _find_last_reason(self, occasion: str) -> str | None:
        step, policy = self._progress.step, self._policy
        assert step is not None
        assert policy is not None
        moments = [
            Moment(step=step, previous_step=step, occasion="signal", signal=number)
            for number in self._held.arrived
        ]
        moments.append(Moment(step=step, previous_step=step, occasion=occasion))
        reasons = (policy.find_reason(moment) for moment in moments)
        return next((reason for reason in reasons if reason is not None), None)


def _marked(metadata: Any, **marks: str) -> dict[str, Any]:
    """Return the metadata of a save with marks added."""
    if metadata is None:
        return dict(marks)
    return {**metadata, **marks} if type(metadata) is dict else {"metadata": metadata, **marks}


def _check_names(save: Save, facts: dict[str, Any]) -> None:
    """Raise for arguments that a save would refuse: it may come much later.

    Raises: TypeError.
    """
    names = _names_of(getattr(save, "__func__", save))
    unknown = sorted(facts.keys() - names - _GIVEN_BY_STEP)
    if unknown:
        raise TypeError(
            f"step() got {unknown[0]!r}; besides its own arguments it takes {', '.join(sorted(names))}"
        )


@cache
def _names_of(save: Save) -> frozenset[str]:
    return frozenset(inspect.signature(save).parameters) - _GIVEN_BY_STEP - {"self"}


def _finish_all() -> None:
    for pacer, save in list(_unfinished.items()):
        try:
            pacer.finish(save)
        except Exception:  # noqa: PERF203 - each has its own chance; the last thing that runs
            logger.exception("the last step could not be saved when the interpreter ended")


# Runs before the background writer waits for its jobs: that one was registered earlier.
atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unfinished.clear)
