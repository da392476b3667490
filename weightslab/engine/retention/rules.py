"""`Retention`: everything that decides what stays: what to keep, of which, and within what limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from weightslab.engine.retention.policies import (
    ROOT,
    AnyOf,
    BestN,
    ByteBudget,
    PreserveAll,
    RetentionPolicy,
    policies_in,
)

__all__ = ["TRASH_LIFETIME", "Retention"]

TRASH_LIFETIME: Final = timedelta(days=7)  # a weekend and the days around it, to notice a mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What to keep, of which checkpoints the training state, and within how many bytes.

        Retention(keep=LatestN(5) | BestN("loss"), training=LatestN(2), budget=ByteBudget(10**11))

    Whatever it says, some are never dropped: the newest valid checkpoint of each experiment and of the
    root, the best one by each metric that a policy names, pinned ones, branch points of what is kept,
    experiments in a `via` of what is kept, and all of which too little is known. The budget is
    stronger than `keep` and `training`, and weaker than these.

    Args:
        keep: policy, or several joined by `|`.
        training: of the checkpoints that are kept, those that keep their training state (optimizers),
            too; the weights of the others stay, in a new revision. The newest of an experiment and
            pinned ones are never thinned.
        budget: at most so many bytes: first older checkpoints lose their training state, then those
            that are worth least are dropped, the oldest first, those that `BestN` keeps last.
        trash_lifetime: how long dropped checkpoints can be restored from the trash. Their bytes are
            free only then. `timedelta(0)` deletes them at once.
    Raises: TypeError, ValueError for what is no policy, or a budget in the place of one.
    """

    keep: RetentionPolicy | AnyOf = field(default_factory=PreserveAll)
    training: RetentionPolicy | AnyOf = field(default_factory=PreserveAll)
    budget: ByteBudget | None = None
    trash_lifetime: timedelta = TRASH_LIFETIME

    def __post_init__(self) -> None:
        policies_in(self.keep)
        policies_in(self.training)
        if self.budget is not None and not isinstance(self.budget, ByteBudget):
            raise TypeError(f"budget is a ByteBudget, not {self.budget!r:.80}")
        if not isinstance(self.trash_lifetime, timedelta):
            raise TypeError(f"trash_lifetime is a timedelta, not {self.trash_lifetime!r:.60}")
        if self.trash_lifetime < timedelta(0):
            raise ValueError(f"trash_lifetime is not negative, as {self.trash_lifetime} is")

    @classmethod
    def of(cls, wanted: Retention | RetentionPolicy | AnyOf | ByteBudget | None) -> Retention:
        """Return the retention that is meant by a policy or a budget alone; None keeps everything.

        Raises: TypeError, ValueError.
        """
        if isinstance(wanted, Retention):
            return wanted
        if wanted is None:
            return cls()
        if isinstance(wanted, ByteBudget):
            return cls(budget=wanted)
        return cls(keep=wanted)

    @property
    def metrics(self) -> tuple[BestN, ...]:
        """The policies that name a metric, whose best checkpoint is never dropped."""
        found = (*policies_in(self.keep), *policies_in(self.training))
        return tuple(policy for policy in found if isinstance(policy, BestN))

    @property
    def spans_root(self) -> bool:
        """Some part of it looks at the whole root."""
        found = [*policies_in(self.keep), *policies_in(self.training)]
        scopes = {policy.scope for policy in found}
        return ROOT in scopes or (self.budget is not None and self.budget.scope == ROOT)
