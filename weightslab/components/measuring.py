"""Measuring: metrics into the log, and the best checkpoint by one of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from weightslab.components.session import is_writer
from weightslab.engine.errors import CheckpointNotFoundError
from weightslab.engine.repository.metric_lines import to_line
from weightslab.engine.saving.drafting import check_metrics, check_step
from weightslab.engine.values import MetricRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightslab.components.session import Session
    from weightslab.engine.repository.catalog import CheckpointEntry

__all__ = ["best_checkpoint", "log_metrics"]


def log_metrics(
    session: Session, step: int, metrics: Mapping[str, float] | None, named: Mapping[str, float]
) -> None:
    """Append metrics of a step to the log, see `CheckpointManagerV2.log_metrics`."""
    exp_hash = session.current_hash or session.get_current("log metrics").exp_hash
    numbers = check_metrics(metrics)
    if twice := numbers.keys() & named.keys():
        raise TypeError(f"metric {min(twice)!r} is given twice: in the dict and by name")
    numbers |= check_metrics(named)
    if not numbers:
        raise ValueError("log_metrics was given no metrics")
    record = MetricRecord(
        exp_hash=exp_hash,
        step=check_step(step, None),
        created_at=session.root.clock(),
        metrics=numbers,
    )
    if is_writer():
        session.metrics_log.append(to_line(record))


def best_checkpoint(
    session: Session, metric: str, mode: str, exp_hash: str | None
) -> CheckpointEntry:
    """Return the best checkpoint, see `CheckpointManagerV2.best_checkpoint`."""
    root = session.root
    wanted = session.current_hash if exp_hash is None else exp_hash
    best = root.best(metric, mode=mode, exp_hash=wanted)
    if best is not None:
        return best
    place = str(root.path) if wanted is None else root.get_hash(wanted)
    entries = root.checkpoints(wanted)
    having = [entry for entry in entries if metric in entry.metrics]
    if having:
        raise CheckpointNotFoundError(
            f"{metric!r} is NaN in all {len(having)} checkpoints of {place} that have it",
            hint="choose another metric, or a step by load_checkpoint(step)",
        )
    raise CheckpointNotFoundError(
        f"no checkpoint of {place} has a metric {metric!r}", hint=_known(metric, entries)
    )


def _known(metric: Any, entries: list[CheckpointEntry]) -> str:
    """Tell which metrics there are, the nearest first."""
    if not entries:
        return "there are no checkpoints yet"
    names = sorted({name for entry in entries for name in entry.metrics})
    if not names:
        return f"none of its {len(entries)} checkpoints has metrics; save with metrics={{...}}"
    near = difflib.get_close_matches(str(metric), names, n=1)
    return f"{f'nearest: {near[0]!r}; ' if near else ''}known: {', '.join(map(repr, names))}"
