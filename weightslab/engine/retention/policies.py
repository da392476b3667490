"""Retention policies: what to keep, as pure functions of a sequence of checkpoints.

    LatestN(3) | BestN("loss") | EveryNSteps(10_000)

A policy looks at the readable checkpoints of its scope, in the order of their commit, and says of each
why it keeps it, or None. Policies only ever add: together (`|`) they keep what any of them keeps.
What answers for a step is its highest readable revision; older ones are kept by `PreserveAll` and
`BestN` alone. Any object with `scope` and `choose` is a policy.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weightslab.engine.repository.catalog import CheckpointEntry

__all__ = [
    "AnyOf",
    "BestN",
    "ByteBudget",
    "CustomSteps",
    "EveryNSeconds",
    "EveryNSteps",
    "LatestN",
    "PreserveAll",
    "RetentionPolicy",
    "policies_in",
]

EXPERIMENT: Final = "experiment"
ROOT: Final = "root"
Reasons = list["str | None"]


@runtime_checkable
class RetentionPolicy(Protocol):
    """Says what to keep.

    The answer about a checkpoint must not change when others that it does not keep are gone:
    otherwise a second run would drop more than the first.
    """

    @property
    def scope(self) -> str:
        """`experiment`: each experiment is looked at alone; `root`: all of them together."""
        ...

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Sequence[str | None]:
        """Return for each checkpoint why it is kept, None if this policy does not keep it.

        Args:
            checkpoints: the readable ones, all revisions; of one experiment in the order of their
                sequence, of the root in the order of their creation.
        """
        ...


@dataclass(frozen=True, slots=True)
class PreserveAll:
    """Keeps everything, older revisions too."""

    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        _check_scope(self.scope)

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        return ["everything is kept"] * len(checkpoints)

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True)
class LatestN:
    """Keeps the `n` newest: of an experiment those committed last, whatever their steps are.

    Args:
        n: how many, >= 1.
        scope: `experiment` or `root`.
    """

    n: int
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        _check_count(self.n, "n")
        _check_scope(self.scope)

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        newest = set(_answering(checkpoints)[-self.n :])
        text = "the newest" if self.n == 1 else f"among the newest {self.n:,}"
        return [text if at in newest else None for at in range(len(checkpoints))]

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True)
class BestN:
    """Keeps the `n` best by a metric; of equals the newer ones.

    The best one is never dropped, by no budget either. NaN is the worst value there is: it has no
    place among the best, and it is not "without the metric".

    Args:
        metric: name given to `save_model_checkpoint(metrics=...)`.
        n: how many, >= 1.
        mode: `min` or `max`.
        keep_checkpoints_without_metrics: keep also those that do not have the metric; they take no
            place among the `n`. True by default, so that a mistyped name drops nothing.
        scope: `experiment` or `root`.
    """

    metric: str
    n: int = 1
    mode: str = "min"
    keep_checkpoints_without_metrics: bool = field(default=True, kw_only=True)
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str):
            raise TypeError(f"metric is the name of a metric, not {self.metric!r:.60}")
        if not self.metric:
            raise ValueError("metric is the name of a metric, not an empty text")
        _check_count(self.n, "n")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {self.mode!r:.60}")
        if not isinstance(self.keep_checkpoints_without_metrics, bool):
            raise TypeError("keep_checkpoints_without_metrics is True or False")
        _check_scope(self.scope)

    def ranking(self, checkpoints: Sequence[CheckpointEntry]) -> list[int]:
        """Return the positions of those that have the metric, the best first."""
        sign = 1 if self.mode == "max" else -1  # an int: a metric may be an int beyond every float
        metric, missing = self.metric, math.nan
        values = [entry.metrics.get(metric, missing) for entry in checkpoints]
        found = [
            (sign * value, entry.created_at, entry.sequence, at)
            for at, (value, entry) in enumerate(zip(values, checkpoints, strict=True))
            if value == value  # noqa: PLR0124 - `isnan` refuses large ints
        ]
        found.sort(reverse=True)
        return [at for *_, at in found]

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        best = set(self.ranking(checkpoints)[: self.n])
        text = "the best" if self.n == 1 else f"among the best {self.n:,}"
        reasons: Reasons = [None] * len(checkpoints)
        for at in best:
            reasons[at] = f"{text} by {self.metric}"
        if self.keep_checkpoints_without_metrics:
            for at in _answering(checkpoints):
                if self.metric not in checkpoints[at].metrics:
                    reasons[at] = f"without {self.metric}"
        return reasons

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True)
class EveryNSteps:
    """Keeps the steps that are multiples of an interval, 0 included.

    Args:
        interval_steps: the interval, >= 1.
        scope: `experiment` or `root`; both keep the same.
    """

    interval_steps: int
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        _check_count(self.interval_steps, "interval_steps")
        _check_scope(self.scope)

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        reasons: Reasons = [None] * len(checkpoints)
        for at in _answering(checkpoints):
            if checkpoints[at].name.step % self.interval_steps == 0:
                reasons[at] = f"every {self.interval_steps:,} steps"
        return reasons

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True)
class EveryNSeconds:
    """Keeps the oldest, and then each that was saved an interval or more after the last one kept.

    Args:
        interval_seconds: the interval, > 0.
        scope: `experiment` or `root`.
    """

    interval_seconds: float
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        seconds: Any = self.interval_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
            raise TypeError(f"interval_seconds is a number of seconds, not {seconds!r:.60}")
        if not 0 < float(seconds) < math.inf:
            raise ValueError(f"interval_seconds is a number of seconds > 0, not {seconds!r:.60}")
        _check_scope(self.scope)

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        reasons: Reasons = [None] * len(checkpoints)
        interval = timedelta(seconds=float(self.interval_seconds))
        due: datetime | None = None
        for moment, at in sorted(
            [(checkpoints[at].created_at, at) for at in _answering(checkpoints)]
        ):
            if moment is not None and (due is None or moment >= due):
                reasons[at] = f"every {self.interval_seconds:,g} seconds"
                due = moment + interval
        return reasons

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True, init=False)
class CustomSteps:
    """Keeps the steps that are named.

    Args:
        steps: the steps, in any iterable.
        scope: `experiment` or `root`; both keep the same.
    """

    steps: frozenset[int]
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __init__(self, steps: Iterable[int], *, scope: str = EXPERIMENT) -> None:
        found = list(steps)
        if not found:
            raise ValueError("steps names no step")
        for step in found:
            _check_count(step, "a step", least=0)
        object.__setattr__(self, "steps", frozenset(int(step) for step in found))
        object.__setattr__(self, "scope", _check_scope(scope))

    def choose(self, checkpoints: Sequence[CheckpointEntry]) -> Reasons:
        # docstring inherited
        reasons: Reasons = [None] * len(checkpoints)
        for at in _answering(checkpoints):
            if checkpoints[at].name.step in self.steps:
                reasons[at] = "a chosen step"
        return reasons

    def __or__(self, other: RetentionPolicy) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """Keeps what any of several policies keeps, each in its own scope. Also written `a | b`.

    Args:
        policies: one or more.
    """

    policies: tuple[RetentionPolicy, ...]

    def __init__(self, *policies: RetentionPolicy) -> None:
        if not policies:
            raise ValueError("AnyOf needs at least one policy")
        found = tuple(inner for policy in policies for inner in policies_in(policy))
        object.__setattr__(self, "policies", found)

    def __repr__(self) -> str:
        """Return the call that makes this policy."""
        return f"AnyOf({', '.join(map(repr, self.policies))})"

    def __or__(self, other: RetentionPolicy | AnyOf) -> AnyOf:
        """Return a policy that keeps what either keeps."""
        return AnyOf(self, other)  # type: ignore[arg-type] # flattened by policies_in


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """The tensor files of what is kept have at most so many bytes together.

    A budget is no policy, but a limit to what policies keep: see `Retention`. Bytes that several
    checkpoints share by links count once. The trash does not count.

    Args:
        max_bytes: the limit, >= 0.
        scope: `experiment`: each experiment has the budget; `root`: all of them share it.
    """

    max_bytes: int
    scope: str = field(default=EXPERIMENT, kw_only=True)

    def __post_init__(self) -> None:
        _check_count(self.max_bytes, "max_bytes", least=0)
        _check_scope(self.scope)


def policies_in(policy: object) -> tuple[RetentionPolicy, ...]:
    """Return the single policies that a policy is made of.

    Raises: TypeError for what is no policy; ValueError for a budget among policies.
    """
    if isinstance(policy, AnyOf):
        return policy.policies
    if isinstance(policy, ByteBudget):
        raise ValueError(  # noqa: TRY004 - the type is known; its place is wrong
            "a byte budget is a limit, not a policy that keeps something; "
            "write Retention(keep=..., budget=ByteBudget(...))"
        )
    if isinstance(policy, type) or not isinstance(policy, RetentionPolicy):
        raise TypeError(
            f"a retention policy such as LatestN(3) is expected, not {policy!r:.80}; "
            "one of your own has `scope` and `choose`"
        )
    _check_scope(policy.scope)
    return (policy,)


def _answering(checkpoints: Sequence[CheckpointEntry]) -> list[int]:
    """Return the positions of the highest revision of each step, ascending."""
    revisions = [entry.name.revision for entry in checkpoints]
    if max(revisions, default=1) == 1:
        return list(range(len(checkpoints)))
    keys = [(entry.name.exp_hash, entry.name.step) for entry in checkpoints]
    highest: dict[tuple[str, int], int] = {}
    for key, revision in zip(keys, revisions, strict=True):
        highest[key] = max(highest.get(key, 0), revision)
    return [at for at, key in enumerate(keys) if highest[key] == revisions[at]]


def _check_count(value: Any, what: str, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} is an int >= {least}, not {value!r:.60}")
    if value < least:
        raise ValueError(f"{what} is an int >= {least}, not {value}")


def _check_scope(scope: object) -> str:
    if scope not in (EXPERIMENT, ROOT):
        raise ValueError(f"scope is 'experiment' or 'root', not {scope!r:.60}")
    return str(scope)
