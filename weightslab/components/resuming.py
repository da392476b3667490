"""Resuming: from what is asked for to live objects that go on where training stopped."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightslab.components import advising, choosing, measuring
from weightslab.components.loading import load_entry
from weightslab.components.replaying import find_previous, replay
from weightslab.components.session import is_writer
from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    IntegrityError,
    ReplayMismatchError,
    StateMismatchError,
    UnsupportedVersionError,
)
from weightslab.engine.replay import ReplayReport
from weightslab.engine.resume import (
    AUTO,
    BEST,
    CONTINUE,
    ERROR,
    HASH,
    NEVER,
    STEP,
    Resumed,
    find_origin,
    why_not_resumable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightslab.components.live_objects import LoadTarget
    from weightslab.components.replaying import Verification
    from weightslab.components.session import Session
    from weightslab.engine.loading.options import LoadOptions
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.resume import Origin, ResumeRequest

__all__ = ["Resuming"]

logger = logging.getLogger(__name__)


class Resuming:
    """One call of `CheckpointManagerV2.resume`.

    Args:
        session: what the manager works with.
        target: the live objects.
        options: how they are restored.
    """

    def __init__(self, session: Session, target: LoadTarget, options: LoadOptions) -> None:
        self._session = session
        self._root = session.root
        self._target = target
        self._options = options
        self._current = session.get_current("resume").exp_hash
        self._skipped: list[dict[str, Any]] = []

    def resume(self, request: ResumeRequest, verification: Verification | None) -> Resumed:
        """Load what is asked for, or tell that training begins anew; verify it if that is asked for."""
        resumed = self._find(request)
        if verification is not None:
            resumed = self._verify(resumed, verification)
        (logger.info if resumed.changed_from is None else logger.warning)("%s", resumed)
        return resumed

    def _find(self, request: ResumeRequest) -> Resumed:
        if request.kind == NEVER:
            return self._fresh("fresh start: resume='never'")
        exp_hash, origin = self._current, None
        if request.kind == HASH:
            exp_hash = self._named(request.prefix)
        elif not self._root.catalog.checkpoints(exp_hash):  # damaged ones count: they are no reason
            origin = find_origin(self._root.store, self._root.catalog, exp_hash)
            if origin is None or request.on_change != CONTINUE:
                return self._nothing_there(request, origin)
            exp_hash = origin.exp_hash
        before = _options_of(self._target)
        entry, found = self._load(request, exp_hash)
        if exp_hash != self._current:
            return self._as_branch(found, origin, before)
        return self._resumed(found, f"resumed {entry.name.stem}")

    # ------------------------------------------------------------ which one
    def _named(self, prefix: str) -> str:
        try:
            return self._root.get_hash(prefix)
        except ExperimentNotFoundError as error:
            if prefix.isdecimal():
                error.hint = f"{error.hint}; a step is an int: resume={int(prefix)}"
            raise

    def _nothing_there(self, request: ResumeRequest, origin: Origin | None) -> Resumed:
        """Begin anew, or say that this is an error."""
        told = f"experiment {self._current} has no checkpoints"
        if origin is not None:
            told += (
                f". Nearest: {origin.exp_hash} ({advising.some(origin.changes)}), newest step "
                f"{origin.newest.name.step}"
            )
        how = "" if origin is None else "resume(..., on_change='continue') goes on from there"
        if request.kind != AUTO or (request.on_change == ERROR and origin is not None):
            hint = how or "resume='auto' begins anew where there is nothing to resume"
            raise CheckpointNotFoundError(told, hint=hint, context={"exp_hash": self._current})
        if origin is None:
            return self._fresh(f"fresh start: {told}")
        reason = f"fresh start: {told}; {how}"
        if all(change.component == "config" for change in origin.changes):
            reason += "; config keys that do not matter can be left out by config_exclude"
        return self._fresh(reason, changed_from=origin.exp_hash, changes=origin.changes)

    def _load(
        self, request: ResumeRequest, exp_hash: str
    ) -> tuple[CheckpointEntry, dict[str, Any]]:
        if request.kind == STEP:
            entry = self._root.get_checkpoint(exp_hash, request.step)
        elif request.kind == BEST:
            entry = measuring.best_checkpoint(self._session, request.metric, request.mode, exp_hash)
        else:
            return self._load_newest(exp_hash)
        return entry, self._load_exact(entry, self._root.manifest(entry))

    def _load_newest(self, exp_hash: str) -> tuple[CheckpointEntry, dict[str, Any]]:
        """Load the newest that can be resumed; damaged manifests may have been the newest."""
        entries = self._root.catalog.checkpoints(exp_hash)
        if not entries:
            raise CheckpointNotFoundError(
                f"experiment {exp_hash} has no checkpoints", context={"exp_hash": exp_hash}
            )
        damaged = [e for e in entries if e.damaged is not None]
        weights_only: list[CheckpointEntry] = []
        for entry in damaged + [e for e in reversed(entries) if e.damaged is None]:
            try:
                manifest = self._root.manifest(entry)
                why_not = why_not_resumable(manifest)
                if why_not is None:
                    return entry, self._load_exact(entry, manifest)
            except UnsupportedVersionError:  # noqa: PERF203 - not damaged: newer than this package
                raise
            except choosing.PASSED_OVER as error:
                told = choosing.skip(self._root, entry, error, record=is_writer())
                self._skipped.append(told)
            else:
                weights_only.append(entry)
                self._pass_over(entry, why_not)
        if weights_only:
            newest = weights_only[0].name
            raise StateMismatchError(
                f"no checkpoint of {exp_hash} can be resumed: step {newest.step}: "
                f"{self._reason_of(newest.stem)}",
                hint="load_latest_checkpoint(load_optimizer=False) loads the weights alone",
            )
        raise IntegrityError(
            f"all {len(self._skipped)} checkpoints of {exp_hash} are damaged; the newest: "
            f"{self._skipped[0]['reason']}",
            hint="manager.root.verify() lists what is wrong with each; resume='never' begins anew",
        )

    def _pass_over(self, entry: CheckpointEntry, why_not: str) -> None:
        name = entry.name
        logger.warning("passing over %s: %s", name.stem, why_not)
        facts = {"step": name.step, "revision": name.revision, "reason": why_not}
        self._skipped.append({**facts, "name": name.stem})

    def _reason_of(self, stem: str) -> str:
        return next(str(each["reason"]) for each in self._skipped if each["name"] == stem)

    # ------------------------------------------------------------ into the live objects
    def _load_exact(self, entry: CheckpointEntry, manifest: Manifest) -> dict[str, Any]:
        """Load one checkpoint with its whole training state.

        Raises: StateMismatchError if it has none, or does not fit; nothing was changed then.
        """
        why_not = why_not_resumable(manifest)
        if why_not is not None:
            raise StateMismatchError(
                f"{entry.name.stem} cannot be resumed: {why_not}",
                hint=f"load_checkpoint({entry.name.step}, load_optimizer=False) loads its weights",
            )
        training, options = manifest.state["training"], self._options
        if options.strict:
            self._check_optimizers(entry, sorted(training["optimizer"]))
        if options.load_random and "random" not in training:
            logger.warning(
                "%s was saved by an older version, without the random state: it stays as it is",
                entry.name.stem,
            )
            options = replace(options, load_random=False)
        return load_entry(self._session, entry, self._target, options)

    def _check_optimizers(self, entry: CheckpointEntry, saved: list[str]) -> None:
        """Refuse to go on without an optimizer that was there, or with one that was not."""
        if saved and not self._target.optimizers:
            raise StateMismatchError(
                f"{entry.name.stem} holds the state of {', '.join(saved)}, but no optimizer was passed "
                "or registered",
                unexpected=saved,
                hint="pass optimizer=; load_latest_checkpoint(load_optimizer=False) loads the weights",
            )
        if self._target.optimizers and not saved:
            raise StateMismatchError(
                f"{entry.name.stem} was saved without an optimizer",
                missing=sorted(self._target.optimizers),
                hint="load_latest_checkpoint(load_optimizer=False) loads the weights",
            )

    def _as_branch(
        self, found: dict[str, Any], origin: Origin | None, before: dict[str, Any]
    ) -> Resumed:
        """Say what it means to go on from a checkpoint of another experiment."""
        exp_hash = found["exp_hash"]
        if origin is not None:
            changes: Sequence[Any] = origin.changes
        else:
            changes = self._changes_from(exp_hash)
        reason = (
            f"continued from step {found['step']} of {exp_hash} ({advising.some(changes)}): a new "
            f"branch in {self._current}"
        )
        after = _options_of(self._target)
        back = [f"{k} {before[k]!r} -> {after[k]!r}" for k in before if before[k] != after.get(k)]
        if back:
            logger.warning(
                "the optimizer goes on as it was saved (%s); set again what the new experiment is "
                "to change",
                ", ".join(back),
            )
        resumed = self._resumed(found, reason)
        return replace(resumed, changed_from=exp_hash, changes=tuple(changes))

    def _changes_from(self, exp_hash: str) -> Sequence[Any]:
        try:
            return self._root.changes(exp_hash, self._current)
        except CheckpointError as error:  # the load is done; the changes are only told
            logger.warning("what changed since %s cannot be told: %s", exp_hash, error)
            return ()

    # ------------------------------------------------------------ verification
    def _verify(self, resumed: Resumed, verification: Verification) -> Resumed:
        """Take the last steps again, and load the checkpoint again after them.

        Raises: ReplayMismatchError; the checkpoint is loaded then, too.
        """
        if not resumed.resumed or resumed.exp_hash != self._current:
            return replace(resumed, replay=ReplayReport(why_not=resumed.reason))
        entry = self._root.get_checkpoint(resumed.exp_hash, resumed.step, revision=resumed.revision)
        manifest = self._root.manifest(entry)
        try:
            report = self._replay(manifest, verification)
        finally:
            found = self._load_exact(entry, manifest)
        if report.difference is not None:
            raise ReplayMismatchError(
                f"training from step {report.from_step} again does not lead to {entry.name.stem}: "
                f"{report.difference}",
                report=report,
                hint="something that training depends on is not restored (see the guide, Resuming), or "
                "this machine computes differently; the checkpoint is loaded",
            )
        if report.why_not is not None:
            logger.warning("%s", report)
        return replace(self._resumed(found, resumed.reason), replay=report)

    def _replay(self, manifest: Manifest, verification: Verification) -> ReplayReport:
        try:
            previous, why_not = find_previous(self._root, manifest)
            if previous is None:
                return ReplayReport(why_not=why_not)
            entry = self._root.get_checkpoint(
                previous.name.exp_hash, previous.name.step, revision=previous.name.revision
            )
            found = self._load_exact(entry, previous)
        except choosing.PASSED_OVER as error:
            return ReplayReport(why_not=f"the checkpoint before it cannot be loaded: {error}")
        begin = self._resumed(found, f"taking steps again from {entry.name.stem}")
        return replay(self._session, self._target, manifest, begin, verification)

    # ------------------------------------------------------------ what comes of it
    def _fresh(self, reason: str, **more: Any) -> Resumed:
        """Begin anew, with the objects remembered as a load would."""
        live, target = self._session.live, self._target
        live.remember_model(target.live)
        if target.optimizers is not None and target.given:
            live.remember_optimizer(target.optimizers)
        return Resumed(
            exp_hash=self._current, resumed=False, reason=reason, **self._place(), **more
        )

    def _resumed(self, found: dict[str, Any], reason: str) -> Resumed:
        told = {name: found[name] for name in ("epoch", "samples_seen")}
        names = ("step", "exp_hash", "revision", "path", "metadata", "metrics", "report")
        return Resumed(
            resumed=True,
            reason=reason,
            skipped=tuple(self._skipped),
            **{name: found[name] for name in names},
            **(told | self._place()),
        )

    def _place(self) -> dict[str, Any]:
        """Return where the tracked sampler is, if there is one and no more."""
        samplers = self._session.tracking.samplers()
        if len(samplers) != 1:
            return {}
        (sampler,) = samplers
        position = sampler.position
        return {
            "epoch": sampler.epoch,
            "position": position,
            "batch": -(-position // sampler.plan.global_batch),
            "samples_seen": sampler.samples_seen,
        }


def _options_of(target: LoadTarget) -> dict[str, Any]:
    """Return the plain options of all parameter groups, by a name for people."""
    found = {}
    for name, optimizer in (target.optimizers or {}).items():
        groups = getattr(optimizer, "param_groups", [])
        for number, group in enumerate(groups):
            place = "" if len(groups) == 1 else f" of group {number}"
            owner = "" if name == "optimizer" else f"{name}: "
            for key, value in group.items():
                if isinstance(value, (bool, int, float, str, tuple)):
                    found[f"{owner}{key}{place}"] = value
    return found
