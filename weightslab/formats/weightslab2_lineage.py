"""Who came from whom in a root of WeightsLab 2.0, as far as its files tell.

A change of config or data there saves the weights again under the new hash, at the step that the old
one had. So the first step of an experiment, if the experiment that was current before has come that far,
comes from it; the further steps come from each other. Where that could be otherwise, nothing is said.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Span", "find_parents"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When an experiment was used, and its steps.

    Attributes:
        exp_hash: its hash.
        steps: in order.
        created, last_used: ISO 8601, so that texts compare like times; empty if unknown.
    """

    exp_hash: str
    steps: tuple[int, ...]
    created: str = ""
    last_used: str = ""

    @property
    def is_dated(self) -> bool:
        """True if it is known when it was used."""
        return bool(self.created and self.last_used)

    def overlaps(self, other: Span) -> bool:
        """Tell whether both may have been in use at one time, in turns."""
        if not (self.is_dated and other.is_dated):
            return True
        return self.created <= other.last_used and other.created <= self.last_used


def find_parents(
    spans: Sequence[Span], current: str | None = None, previous: str | None = None
) -> dict[tuple[str, int], tuple[str, int]]:
    """Return (hash, step) -> (hash, step) of the checkpoint it was trained from.

    Args:
        spans: all experiments of the root.
        current, previous: the one that was current last, and the one before it, where that is told.
    """
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for span in spans:
        rivals = (other for other in spans if other is not span and span.overlaps(other))
        between = sorted({step for other in rivals for step in other.steps})
        for before, step in zip(span.steps, span.steps[1:], strict=False):
            if bisect_right(between, before) == bisect_right(between, step):
                found[span.exp_hash, step] = (span.exp_hash, before)
        told = previous if span.exp_hash == current else None
        origin = _predecessor(span, spans, told)
        if origin is not None:
            first = span.steps[0]
            found[span.exp_hash, first] = (
                origin.exp_hash,
                max(s for s in origin.steps if s <= first),
            )
    return found


def _predecessor(span: Span, spans: Sequence[Span], told: str | None) -> Span | None:
    """Return the experiment whose weights were saved again as the first step of this one."""
    first = span.steps[0] if span.steps else 0
    if first == 0 or not span.created:  # step 0: nothing was trained that could have come along
        return None
    earlier = [
        other
        for other in spans
        if other is not span and other.created and other.created < span.created
    ]
    same = [other for other in earlier if first in other.steps]
    if told is not None:
        return next((other for other in same if other.exp_hash == told), None)
    done = [other for other in same if other.last_used and other.last_used <= span.created]
    if len(same) == 1:
        return same[0]
    return max(done, key=lambda other: other.last_used) if len(done) == len(same) and done else None
