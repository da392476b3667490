"""Retaining: the retention of a manager, applied after each commit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from weightslab.engine.collecting.collector import Collector
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from weightslab.engine.retention.rules import Retention
    from weightslab.engine.root import CheckpointRoot

__all__ = ["Retainer"]

logger = logging.getLogger(__name__)


class Retainer:
    """Applies a retention, and never lets a save fail for it. Called from one thread at a time.

    What was saved just now needs no reading again, so only the sizes of files are looked at.

    Args:
        root: the root.
        retention: what to keep, of the experiment that was saved to, or of the root if it says so.
    """

    def __init__(self, root: CheckpointRoot, retention: Retention) -> None:
        self._root = root
        self._retention = retention
        self._collectors: dict[str, Collector] = {}
        self._told: set[str] = set()

    def __call__(self, exp_hash: str) -> None:
        """Apply it after a commit to an experiment."""
        try:
            report = self._collector(exp_hash).collect()
        except Exception as error:  # noqa: BLE001 - policies of users; and a save must not fail here
            self._collectors.clear()  # what it knew may be half of it
            self._warn(
                exp_hash, f"the retention failed after a save: {type(error).__name__}: {error}"
            )
        else:
            for problem in report.problems:
                self._warn(exp_hash, problem)

    def _collector(self, exp_hash: str) -> Collector:
        key = "" if self._retention.spans_root else exp_hash
        if key not in self._collectors:
            self._collectors.clear()  # one experiment is current at a time
            self._collectors[key] = Collector(
                self._root, self._retention, focus=exp_hash, verify="size"
            )
        return self._collectors[key]

    def _warn(self, exp_hash: str, problem: str) -> None:
        """Log each problem once, and keep it for the next report."""
        if problem not in self._told:
            self._told.add(problem)
            self._root.retention_problems.append(problem)
            logger.warning("%s", problem)
            record_event(self._root, "retention_problem", exp_hash=exp_hash, problem=problem)
