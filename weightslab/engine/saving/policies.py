"""Save policies: pure rules for when a training loop saves. Free of torch, of clocks and of files.

    FixedInterval(100) | TimeInterval(600) | OnPreemption() | AtExit()

A policy looks at a `Moment` and returns why to save now, or None. Any object with such a method
`find_reason` is a policy; `|` puts policies together.
"""

from __future__ import annotations

import math
import numbers
import signal
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "AnySave",
    "AtExit",
    "FixedInterval",
    "InitialSave",
    "Moment",
    "OnException",
    "OnPreemption",
    "SavePolicy",
    "SpecificSteps",
    "TimeInterval",
    "check_policy",
    "policies_in",
    "signal_name",
]

_THEN: Final = ("exit", "signal", "continue")
_UNCATCHABLE: Final = frozenset(
    number
    for name in ("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS", "SIGCHLD")
    if (number := getattr(signal, name, None)) is not None
)


class Moment(NamedTuple):
    """What a policy decides by. One is made for each step; a frozen dataclass takes four times as long.

    Attributes:
        step: the step that was completed last.
        previous_step: the step seen or loaded before it; None for the first one.
        has_checkpoint: the experiment has a checkpoint already.
        seconds_since_save: time since the last save returned; without one, since the manager opened.
        occasion: `step` (the loop has completed one), `signal`, `exception` (one leaves the `with`
            block of the manager) or `exit` (its use ends).
        signal: number of the signal; None on other occasions.
    """

    step: int
    previous_step: int | None = None
    has_checkpoint: bool = False
    seconds_since_save: float = 0.0
    occasion: str = "step"
    signal: int | None = None


class SavePolicy(Protocol):
    """A rule for when to save."""

    def find_reason(self, moment: Moment, /) -> str | None:
        """Return why to save now, in a few words (`every 100 steps`); None: no reason."""
        ...


def _either(one: SavePolicy, other: SavePolicy) -> AnySave:
    return AnySave(one, other)


def _or_after(one: SavePolicy, other: SavePolicy) -> AnySave:
    return AnySave(other, one)


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """Save every N steps: at each multiple of N, step 0 left out.

    Where steps jump over a multiple, the first step after it saves. The first step of a process, and
    one that is not above the step before it (a run that was rewound), saves only if it is a multiple
    itself.

    Args:
        interval_steps: N, >= 1.
    """

    interval_steps: int

    def __post_init__(self) -> None:
        _require_int(self.interval_steps, "interval_steps", least=1)

    def find_reason(self, moment: Moment) -> str | None:
        """Return `every N steps` where a multiple of N was reached."""
        if moment.occasion != "step":
            return None
        step, previous, interval = moment.step, moment.previous_step, self.interval_steps
        if previous is None or previous > step:
            is_due = step % interval == 0 and step > 0
        else:
            is_due = step // interval > previous // interval
        return f"every {interval} steps" if is_due else None

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """Save at the first step that ends N seconds or more after the last save returned.

    Saves of any kind count, also those by hand. Before the first one, the time runs from the opening
    of the manager.

    Args:
        interval_seconds: N, finite, > 0.
    """

    interval_seconds: float

    def __post_init__(self) -> None:
        _require_seconds(self.interval_seconds, "interval_seconds")

    def find_reason(self, moment: Moment) -> str | None:
        """Return `every N s` where the time is up."""
        if moment.occasion != "step" or moment.seconds_since_save < self.interval_seconds:
            return None
        return f"every {self.interval_seconds:g} s"

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class SpecificSteps:
    """Save at chosen steps; a step that is jumped over is saved at the first one after it.

    Args:
        steps: ints >= 0; order and repetition do not matter.
    """

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        if isinstance(steps, (str, bytes)) or not hasattr(steps, "__iter__"):
            raise TypeError(f"steps is a collection of ints, not {steps!r:.60}")
        chosen = tuple(sorted({_require_int(step, "each of steps", least=0) for step in steps}))
        if not chosen:
            raise ValueError(
                "SpecificSteps has no steps, so it would never save; name at least one"
            )
        object.__setattr__(self, "steps", chosen)

    def find_reason(self, moment: Moment) -> str | None:
        """Return `step N was chosen` where N was reached."""
        if moment.occasion != "step":
            return None
        step, previous = moment.step, moment.previous_step
        place = bisect_right(self.steps, step)
        reached = self.steps[place - 1] if place else -1
        if previous is None or previous > step:
            previous = step - 1
        return f"step {reached} was chosen" if previous < reached <= step else None

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class InitialSave:
    """Save the first step of an experiment, unless the experiment has a checkpoint already."""

    def find_reason(self, moment: Moment) -> str | None:
        """Return `first step` where the experiment has no checkpoint."""
        return None if moment.occasion != "step" or moment.has_checkpoint else "first step"

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class OnPreemption:
    """Save when the process is told to end, at the end of the step it is in.

    From the first `manager.step` on, the signals are held back: the next `manager.step` commits its
    step, waits until it is on disk, and passes the signal on. See the guide for what that means.

    Args:
        signals: what counts as being told to end: a tuple, or a single one.
        then: what follows the save. `exit`: the signal goes to the handler that was there before the
            manager; where there was none `Preempted` is raised, a `SystemExit` with 128 + its number.
            `signal`: the process dies of the signal, as if nobody had handled it. `continue`:
            training goes on.
        grace_seconds: what the platform grants between the signal and the kill (Kubernetes: 30,
            terminationGracePeriodSeconds; SLURM: 30, KillWait). It changes nothing but what is
            logged: the save is done even where it is likely to be too late.
    """

    signals: int | tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    then: str = "exit"
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        found = self.numbers
        if not found:
            raise ValueError("OnPreemption has no signals, so it would never save")
        for number in found:
            if isinstance(number, bool) or number not in signal.valid_signals():
                raise ValueError(f"signals are numbers such as signal.SIGTERM, not {number!r:.60}")
            if number in _UNCATCHABLE:
                raise ValueError(f"{signal_name(number)} cannot be held back until a save is done")
        if self.then not in _THEN:
            raise ValueError(f"then is one of {', '.join(map(repr, _THEN))}, not {self.then!r:.60}")
        _require_seconds(self.grace_seconds, "grace_seconds")
        object.__setattr__(self, "signals", tuple(int(number) for number in dict.fromkeys(found)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The signals as a tuple."""
        return (self.signals,) if isinstance(self.signals, int) else self.signals

    def find_reason(self, moment: Moment) -> str | None:
        """Return the name of the signal."""
        number = moment.signal
        if number is None:
            return None
        return signal_name(number) if number in self.numbers else None

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class OnException:
    """Save the last completed step when an exception leaves the `with` block of the manager."""

    def find_reason(self, moment: Moment) -> str | None:
        """Return `exception` on that occasion."""
        return "exception" if moment.occasion == "exception" else None

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class AtExit:
    """Save the last completed step when the use of the manager ends.

    That is `close()`, the end of its `with` block, or the end of the interpreter.
    """

    def find_reason(self, moment: Moment) -> str | None:
        """Return `exit` when the use ends, also by an exception."""
        return "exit" if moment.occasion in ("exit", "exception") else None

    __or__, __ror__ = _either, _or_after


@dataclass(frozen=True, slots=True)
class AnySave:
    """Save when any of several policies says so; the first reason counts. `a | b` makes one.

    Args:
        policies: at least one; those in an `AnySave` are taken out of it.
    Raises: ValueError for policies that contradict each other: two `OnPreemption` for one signal.
    """

    policies: tuple[SavePolicy, ...]

    def __init__(self, *policies: SavePolicy) -> None:
        if not policies:
            raise ValueError("AnySave has no policies, so it would never save; give at least one")
        found = tuple(part for policy in policies for part in policies_in(policy))
        _refuse_contradictions(found)
        object.__setattr__(self, "policies", tuple(dict.fromkeys(found)))

    def find_reason(self, moment: Moment) -> str | None:
        """Return the first reason; None if there is none."""
        for policy in self.policies:
            reason = policy.find_reason(moment)
            if reason is not None:
                return reason
        return None

    __or__, __ror__ = _either, _or_after


def policies_in(policy: SavePolicy) -> Iterator[SavePolicy]:
    """Yield the policies that `policy` is made of.

    Raises: TypeError for something that is no policy.
    """
    if isinstance(policy, AnySave):
        yield from policy.policies
    else:
        yield check_policy(policy)


def check_policy(policy: Any) -> SavePolicy:
    """Return `policy`.

    Raises: TypeError for something that is no policy.
    """
    if isinstance(policy, type) or not callable(getattr(policy, "find_reason", None)):
        kind = f"the class {policy.__name__}" if isinstance(policy, type) else f"{policy!r:.60}"
        raise TypeError(
            f"{kind} is no save policy; give e.g. FixedInterval(100) | OnPreemption(), or an object "
            "with find_reason(moment)"
        )
    found: SavePolicy = policy
    return found


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15; real-time signals without a name are `signal N`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _refuse_contradictions(policies: tuple[SavePolicy, ...]) -> None:
    owner: dict[int, OnPreemption] = {}
    for policy in policies:
        if isinstance(policy, OnPreemption):
            for number in policy.numbers:
                first = owner.setdefault(number, policy)
                if first != policy:
                    raise ValueError(
                        f"{first} and {policy} contradict each other: both are about "
                        f"{signal_name(number)}; give each signal to one of them"
                    )


def _require_int(value: object, what: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} is an int >= {least}, not {value!r:.60}")
    if value < least:
        raise ValueError(f"{what} is an int >= {least}, not {value}")
    return int(value)


def _require_seconds(value: float, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds, not {value!r:.60}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} is a number of seconds > 0, not {value}")
