"""`gc`: what people call to have a retention applied, as `root.gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from weightslab.engine.care.keeper import Keeper, refuse_read_only
from weightslab.engine.collecting.collector import Collector
from weightslab.engine.retention.rules import Retention

if TYPE_CHECKING:
    from weightslab.engine.collecting.report import GcReport
    from weightslab.engine.retention.policies import AnyOf, ByteBudget, RetentionPolicy

__all__ = ["gc"]


class Collected(Keeper, Protocol):
    """A root with the retention of its manager, and what went wrong with it since the last `gc`."""

    retention: Retention
    retention_problems: list[str]


def gc(
    root: Collected,
    policy: Retention | RetentionPolicy | AnyOf | ByteBudget | None = None,
    *,
    dry_run: bool = False,
) -> GcReport:
    """Drop and thin checkpoints by a retention policy, and say what, why and how many bytes.

    Never dropped: the newest valid checkpoint of each experiment and of the root, the best by each
    metric that the policy names, pinned ones, branch points and experiments in a `via` of what is kept,
    what is being read or written. Before something goes, every byte of what is to be newest or best
    instead is verified. What is dropped goes to the trash, whose time is stated in the report; what
    was there for longer is deleted for good.

    Safe beside running savers, loads and other collections; killed anywhere, each checkpoint is in its
    place or whole in the trash. Done again, it does nothing more.

    Args:
        policy: a policy, several joined by `|`, a `ByteBudget`, or a `Retention` of all these; by
            default that of the manager, and without one everything is kept.
        dry_run: change nothing, and report what would be done.
    Raises: TypeError, ValueError for what is no policy; ReadOnlyStoreError unless `dry_run`;
        StorageError if the root cannot be looked at.
    """
    wanted = root.retention if policy is None else Retention.of(policy)
    if not dry_run:
        refuse_read_only(root, "drop checkpoints")
    report = Collector(root, wanted).collect(dry_run=dry_run)
    earlier = tuple(root.retention_problems)
    root.retention_problems.clear()
    return report.with_problems(earlier)
