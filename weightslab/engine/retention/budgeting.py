"""Budgeting: what is thinned and dropped so that the rest fits into a number of bytes.

In two stages, each of which stops as soon as it is enough: training state goes first, the oldest
first; then checkpoints go, those that are worth least first. Bytes with several names count once.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from weightslab.engine.retention.facts import Candidate, FileFacts
    from weightslab.engine.retention.needs import Kept

__all__ = ["Meter", "drop_to_fit", "files_left", "thin_to_fit"]


class Meter:
    """Counts the bytes of files in buckets, shared ones once in each.

    Attributes:
        size_bytes: bucket -> bytes.
    """

    def __init__(self) -> None:
        self.size_bytes: dict[str, int] = defaultdict(int)
        self._names: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)

    def add(self, bucket: str, files: Iterable[FileFacts]) -> None:
        """Count files of a checkpoint."""
        size_bytes = 0
        for file in files:
            if file.num_links > 1:
                names = self._names[bucket]
                count = names.get(file.identity, 0)
                names[file.identity] = count + 1
                if count:
                    continue
            size_bytes += file.size_bytes
        self.size_bytes[bucket] += size_bytes

    def remove(self, bucket: str, files: Iterable[FileFacts]) -> None:
        """Count files no longer."""
        for file in files:
            if file.num_links > 1:
                names = self._names[bucket]
                names[file.identity] -= 1
                if names[file.identity]:
                    continue
            self.size_bytes[bucket] -= file.size_bytes


def files_left(member: Candidate, *, is_thin: bool) -> Sequence[FileFacts]:
    """Return the files that a checkpoint has once it is thinned, or as it is."""
    return [file for file in member.files if not file.is_training] if is_thin else member.files


def thin_to_fit(
    members: Sequence[Candidate],
    kept: Collection[int],
    thin: set[int],
    thinnable: Sequence[int],
    *,
    max_bytes: int,
    buckets: Sequence[str],
) -> set[str]:
    """Thin the oldest until each bucket fits, or nothing is left to thin.

    Args:
        members: the checkpoints.
        kept: positions of those that stay.
        thin: of these, what is thinned anyway; grows.
        thinnable: of these, what may be thinned, the oldest first.
        max_bytes: for each bucket.
        buckets: position -> what has a budget of its own.
    Returns: the buckets that do not fit all the same.
    """
    meter = Meter()
    for at in kept:
        meter.add(buckets[at], files_left(members[at], is_thin=at in thin))
    sizes = meter.size_bytes
    for at in thinnable:
        if sizes[buckets[at]] > max_bytes and at not in thin:
            thin.add(at)
            meter.remove(buckets[at], [file for file in members[at].files if file.is_training])
    return {bucket for bucket, size_bytes in meter.size_bytes.items() if size_bytes > max_bytes}


def drop_to_fit(
    members: Sequence[Candidate],
    kept: Kept,
    wanted: Sequence[int],
    reasons: Mapping[int, str],
    thin: Collection[int],
    *,
    max_bytes: int,
    buckets: Sequence[str],
) -> dict[str, int]:
    """Add to what must stay as much as fits, of what is worth most first.

    What must stay together with a checkpoint (its branch point) counts with it. A bucket takes
    nothing more after the first that did not fit: what is dropped is worth less than what stays.

    Args:
        members: the checkpoints.
        kept: what is protected; grows.
        wanted: positions of what policies keep, what is worth most first.
        reasons: position -> why a policy keeps it.
        thin: what is thinned.
        max_bytes: for each bucket.
        buckets: position -> what has a budget of its own.
    Returns: bucket -> bytes of what is protected, where that alone is too much.
    """
    meter = Meter()
    for at in kept.reasons:
        meter.add(buckets[at], files_left(members[at], is_thin=at in thin))
    unmet = {bucket: size for bucket, size in meter.size_bytes.items() if size > max_bytes}
    full: set[str] = set()
    for at in wanted:
        if buckets[at] in full or at in kept.reasons:
            continue
        added = kept.add(at, reasons[at])
        before = {buckets[new]: meter.size_bytes[buckets[new]] for new in added}
        files = [(buckets[new], files_left(members[new], is_thin=new in thin)) for new in added]
        for bucket, more in files:
            meter.add(bucket, more)
        sizes = ((meter.size_bytes[bucket], size) for bucket, size in before.items())
        if any(size > max_bytes and size > old for size, old in sizes):
            for bucket, more in files:
                meter.remove(bucket, more)
            kept.undo(added)
            full.add(buckets[at])
    return unmet
