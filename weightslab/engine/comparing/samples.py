"""Samples compared: who came, who went, and of which label or tag they are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from weightslab.engine.comparing.results import DataDiff
from weightslab.engine.identity.facets import key_of
from weightslab.engine.identity.samples import SampleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["diff_data"]


def diff_data(
    old: SampleSet | None, new: SampleSet | None, *, places: tuple[int, int]
) -> DataDiff | None:
    """Return how two sample sets differ; None if they do not.

    O(changes) for sets that go back to one base, O(n) otherwise.

    Args:
        old, new: None for a side without samples, which is compared as an empty set.
        places: positions of both sides in the comparison.
    """
    if old is None and new is None:
        return None
    before, after = (SampleSet.from_uids([]) if one is None else one for one in (old, new))
    if old is not None and new is not None and old.digest == new.digest:
        return None
    added, removed = before.difference(after)
    facets = [one.overlay().facets for one in (before, after)]
    names = sorted({*facets[0], *facets[1]})
    return DataDiff(
        old=places[0],
        new=places[1],
        num_old=None if old is None else len(old),
        num_new=None if new is None else len(new),
        added=added,
        removed=removed,
        by_label={
            name: _by_value(
                _values(removed, facets[0].get(name, {})), _values(added, facets[1].get(name, {}))
            )
            for name in names
        },
        relabelled={
            name: sum(1 for _ in _relabelled(facets[0][name], facets[1][name], before, after))
            for name in names
            if name in facets[0] and name in facets[1]
        },
    )


def _values(samples: SampleSet, values: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the label of each sample, each of its tags, or `(none)`."""
    for uid in samples:
        value = values.get(key_of(uid))
        if isinstance(value, list):
            yield from map(str, value or ["(none)"])
        else:
            yield "(none)" if value is None else str(value)


def _by_value(removed: Iterable[str], added: Iterable[str]) -> dict[str, tuple[int, int]]:
    counts = Counter(removed), Counter(added)
    return {name: (counts[0][name], counts[1][name]) for name in sorted({*counts[0], *counts[1]})}


def _relabelled(
    old: Mapping[Any, Any], new: Mapping[Any, Any], before: SampleSet, after: SampleSet
) -> Iterator[Any]:
    if old is new:
        return
    for key in {**old, **new}:
        uid = key.decode() if isinstance(key, bytes) else key
        if old.get(key) != new.get(key) and uid in before and uid in after:
            yield key
