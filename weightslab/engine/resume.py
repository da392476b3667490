"""Resuming: what is asked for, which experiment it is taken from, and what comes of it. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine import compare
from weightslab.engine.repository.layout import is_exp_hash

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.engine.loading.report import LoadReport
    from weightslab.engine.replay import ReplayReport
    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry
    from weightslab.engine.repository.experiment import ExperimentRecord
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import Change

__all__ = ["Origin", "ResumeRequest", "Resumed", "find_origin", "why_not_resumable"]

AUTO: Final = "auto"
LATEST: Final = "latest"
BEST: Final = "best"
NEVER: Final = "never"
STEP: Final = "step"
HASH: Final = "hash"
FRESH: Final = "fresh"
CONTINUE: Final = "continue"
ERROR: Final = "error"
_LOOKED_AT: Final = 20  # experiments; looking for the nearest must not read a whole large root


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest:
    """What to resume.

    Attributes:
        kind: `auto`, `latest`, `best`, `never`, `step` or `hash`.
        step: of kind `step`.
        prefix: hash or prefix, of kind `hash`.
        metric, mode: of kind `best`.
        on_change: `fresh`, `continue` or `error`.
    """

    kind: str
    step: int = 0
    prefix: str = ""
    metric: str = ""
    mode: str = "min"
    on_change: str = FRESH

    @classmethod
    def of(
        cls, resume: Any, *, metric: str | None = None, mode: str = "min", on_change: str = FRESH
    ) -> ResumeRequest:
        """Read the arguments of `CheckpointManagerV2.resume`.

        Raises: TypeError, ValueError.
        """
        if on_change not in (FRESH, CONTINUE, ERROR):
            raise ValueError(
                f"on_change is {FRESH!r}, {CONTINUE!r} or {ERROR!r}, not {on_change!r:.40}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {mode!r:.40}")
        if isinstance(resume, int) and not isinstance(resume, bool):
            if resume < 0:
                raise ValueError(f"a step to resume is an int >= 0, not {resume}")
            return cls(kind=STEP, step=resume, on_change=on_change)
        if not isinstance(resume, str) or not resume:
            raise TypeError(
                "resume is 'auto', 'latest', 'best', 'never', a step (int) or the beginning of a hash, "
                f"not {resume!r:.40}"
            )
        if resume not in (AUTO, LATEST, BEST, NEVER):
            return cls(kind=HASH, prefix=resume, on_change=on_change)
        if resume == BEST and not metric:
            raise ValueError("resume='best' needs metric=: the name of a metric that was saved")
        return cls(kind=resume, metric=metric or "", mode=mode, on_change=on_change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where training goes on. True if a checkpoint was loaded.

    Attributes:
        step: optimizer steps done so far; 0 for a fresh start. The next one is `step + 1`.
        epoch: the epoch of the next batch, as the tracked `ResumableSampler` counts it; without one
            what was told to the save; None if nothing was; 0 for a fresh start.
        batch: batches of this epoch that are done, of the present size; None without a sampler.
        position: samples of this epoch that are done; None without a sampler.
        samples_seen: samples done in all epochs; None if unknown; 0 for a fresh start.
        exp_hash: experiment of the checkpoint; for a fresh start the current one.
        resumed: a checkpoint was loaded.
        reason: what was done, and why.
        revision, path, metadata, metrics: of the checkpoint; None and empty for a fresh start.
        skipped: newer checkpoints that were passed over: `step`, `revision`, `reason`, `name`.
        changed_from: the experiment that the current one came from, where there was no checkpoint of
            the current one; None otherwise.
        changes: what changed from `changed_from` to the current experiment.
        report: what the load did; None for a fresh start.
        replay: what `resume_verification` found; None if it was not asked for.
    """

    step: int = 0
    epoch: int | None = 0
    batch: int | None = None
    position: int | None = None
    samples_seen: int | None = 0
    exp_hash: str
    resumed: bool
    reason: str
    revision: int | None = None
    path: Path | None = None
    metadata: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: tuple[dict[str, Any], ...] = ()
    changed_from: str | None = None
    changes: tuple[Change, ...] = ()
    report: LoadReport | None = None
    replay: ReplayReport | None = None

    def __bool__(self) -> bool:
        """Tell whether a checkpoint was loaded."""
        return self.resumed

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The experiment with checkpoints that another one came from.

    Attributes:
        newest: its newest checkpoint.
        changes: what changed since.
    """

    newest: CheckpointEntry
    changes: tuple[Change, ...]

    @property
    def exp_hash(self) -> str:
        """Its hash."""
        return self.newest.name.exp_hash


def find_origin(store: Store, catalog: Catalog, exp_hash: str) -> Origin | None:
    """Return where an experiment without checkpoints came from.

    That is the experiment it was changed from, or, where that has no checkpoints either, the one that
    was changed from, and so on; where this ends without any, the nearest of the newest 20 that have
    some. None if the root has none.
    """
    entry = catalog.experiment(exp_hash)
    if entry is None or entry.record is None:
        return None
    seen, record = {exp_hash}, entry.record
    while (before := _changed_from(record)) is not None and before not in seen:
        seen.add(before)
        found = catalog.experiment(before)
        if found is None or found.record is None:
            break
        newest = catalog.latest(before)
        if newest is not None:
            changes = compare.explain(store, found, entry).changes
            return Origin(newest=newest, changes=changes)
        record = found.record
    others = (e for e in reversed(catalog.experiments()) if e.exp_hash not in seen and e.record)
    having = list(islice((e for e in others if catalog.latest(e.exp_hash)), _LOOKED_AT))
    mine = compare.describe_stored(store, entry, parts=("model", "config", "data"))
    near = compare.nearest(store, having, mine)
    newest = None if near is None else catalog.latest(near[0])
    if near is None or newest is None:
        return None
    return Origin(newest=newest, changes=tuple(near[1]))


def _changed_from(record: ExperimentRecord) -> str | None:
    found = (record.changed_from or {}).get("exp_hash")
    return found if isinstance(found, str) and is_exp_hash(found) else None


def why_not_resumable(manifest: Manifest) -> str | None:
    """Return why training cannot go on exactly from a checkpoint; None if it can.

    It holds the weights alone: training would go on with an optimizer that knows nothing.
    """
    training = manifest.state.get("training")
    if isinstance(training, dict) and isinstance(training.get("optimizer"), dict):
        return None
    if manifest.derived_from is not None:
        return "its optimizer state was dropped by thinning"
    return "it holds the weights alone (save_optimizer=False)"
