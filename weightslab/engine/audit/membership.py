"""Which of some samples are active in an experiment; unknown where its record or samples are not here.

A set of samples has a digest, and the record of an experiment names it: so each distinct set is read
once, from whichever experiment has it whole. What a set changes in its base is remembered in the index
under the stamps of both files, so that a thousand sets over one base cost one read of the base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.identity.facets import key_of, keys_of
from weightslab.engine.identity.overlay import columns_of_given, given_of
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.identity.uids import Columns, read_uids
from weightslab.engine.repository.component_file import read_samples

if TYPE_CHECKING:
    from weightslab.engine.identity.base import Base
    from weightslab.engine.identity.overlay import Overlay
    from weightslab.engine.repository.catalog import Catalog, ExperimentEntry
    from weightslab.engine.storage.store import Store

__all__ = ["Membership", "Wanted"]

_MAX_REMEMBERED: Final = 4096  # changed samples of a set; more are read from the file each time


@dataclass(frozen=True, eq=False)
class Wanted:
    """The samples that are asked for; a set of them is a number with one bit each.

    Attributes:
        uids: as they were given, repetitions once.
        columns: the same in columns.
        bits: key -> bit.
    """

    uids: tuple[int | str, ...]
    columns: Columns
    bits: dict[int | bytes, int]

    @classmethod
    def of(cls, uids: Any) -> Wanted:
        """Read UIDs of any supported container.

        Raises: IdentityError for what cannot be a UID; ValueError for none at all.
        """
        given = uids.overlay().active() if isinstance(uids, SampleSet) else None
        columns = read_uids(uids) if given is None else Columns.of(*given)
        if not len(columns):
            raise ValueError("there are no samples to audit: pass at least one UID")
        keys = keys_of(columns)
        return cls(tuple(given_of(columns)), columns, {key: 1 << n for n, key in enumerate(keys)})

    def chosen(self, mask: int) -> tuple[int | str, ...]:
        """Return the samples of a mask."""
        return tuple(uid for n, uid in enumerate(self.uids) if mask >> n & 1)

    def mask_in(self, overlay: Overlay) -> int:
        """Return those that are active in a set."""
        return sum(1 << n for n in overlay.holds(self.columns).nonzero()[0].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is known of the samples of an experiment.

    Attributes:
        mask: those of the wanted ones that are active; 0 where it is unknown.
        unknown: why it is unknown; None where it is known.
        state: text that tells the set from every other, as samplers record it.
    """

    mask: int = 0
    unknown: str | None = None
    state: str = ""


class Membership:
    """Answers for the experiments of a root; a snapshot, not thread-safe.

    Args:
        store: where the root lives.
        catalog: what it has.
        wanted: the samples.
    """

    def __init__(self, store: Store, catalog: Catalog, wanted: Wanted) -> None:
        self.entries = {entry.exp_hash: entry for entry in catalog.experiments()}
        self._store, self._catalog, self._wanted = store, catalog, wanted
        self._by_digest: dict[str, list[ExperimentEntry]] = {}
        for entry in self.entries.values():
            if entry.record is not None and entry.record.components.data is not None:
                self._by_digest.setdefault(entry.record.components.data, []).append(entry)
        self._found: dict[str, Held] = {}
        self._recalled: dict[str, str] | None = None
        self._made: dict[str, tuple[str | None, str]] = {}
        self._masks: dict[tuple[str, str], tuple[Base, int]] = {}

    def held(self, exp_hash: str) -> Held:
        """Return what is known of the samples of an experiment."""
        entry = self.entries.get(exp_hash)
        if entry is None:
            return Held(unknown=f"the experiment {exp_hash} is not here")
        if entry.record is None:
            return Held(unknown=f"the record of {exp_hash} is damaged")
        digest = entry.record.components.data
        if digest is None:
            return Held(unknown=f"{exp_hash} was given no samples")
        if digest not in self._found:
            self._found[digest] = self._read(entry, digest)
        found = self._found[digest]
        return found if found.unknown is None else Held(unknown=f"{exp_hash}: {found.unknown}")

    def read_set(self, exp_hash: str) -> SampleSet | None:
        """Return the whole set of an experiment whose samples are known."""
        record = self.entries[exp_hash].record
        digest = None if record is None else record.components.data
        for entry in self._by_digest.get(digest or "", []):
            assert entry.record is not None, "only records with samples are listed"
            try:
                return read_samples(self._store, entry.record)
            except CheckpointError:
                continue  # damaged or gone: the same set of another experiment will do
        return None

    def keep(self) -> None:
        """Remember what was made of files, for the next audit."""
        if self._made:
            stamps = {h: stamp for h, (stamp, _) in self._made.items()}
            bodies = {h: body for h, (_, body) in self._made.items()}
            self._catalog.memory.keep_samples(bodies, stamps)
            self._made = {}

    # ------------------------------------------------------------ one set
    def _read(self, first: ExperimentEntry, digest: str) -> Held:
        if self._recalled is None:
            self._recalled = self._catalog.memory.recall_samples()
        others = [entry for entry in self._by_digest[digest] if entry is not first]
        problem = ""
        for entry in (first, *others):
            recalled = self._recall(self._recalled.get(entry.exp_hash), digest)
            if recalled is not None:
                return recalled
            try:
                return self._read_file(entry)
            except CheckpointError as error:
                problem = problem or f"its samples cannot be read: {error}"
        return Held(unknown=problem)

    def _read_file(self, entry: ExperimentEntry) -> Held:
        assert entry.record is not None, "only records with samples are listed"
        stamp = self._catalog.memory.stamp_samples(entry.exp_hash)
        overlay = read_samples(self._store, entry.record).overlay()
        self._base_mask(overlay.base)
        if overlay.num_changes() <= _MAX_REMEMBERED and overlay.base.active != overlay.state:
            self._made[entry.exp_hash] = stamp, _to_text(overlay)
        return Held(mask=self._wanted.mask_in(overlay), state=_state_text(overlay))

    def _base_mask(self, base: Base) -> int:
        token = base.active.digest, base.known.digest
        if token not in self._masks:
            mask = self._wanted.mask_in(_unchanged(base))
            self._masks[token] = (
                base,
                mask,
            )  # the base is held, so that no other delta reads it again
        return self._masks[token][1]

    def _recall(self, text: str | None, digest: str) -> Held | None:
        """Return what is remembered of a set whose base is known; None if there is nothing."""
        if text is None:
            return None
        told = json.loads(text)
        known = self._masks.get(tuple(told["base"]))
        if told["digest"] != digest or known is None:
            return None
        mask, bits = known[1], self._wanted.bits
        for uid in told["removed"]:
            mask &= ~bits.get(key_of(uid), 0)
        for uid in told["added"]:
            mask |= bits.get(key_of(uid), 0)
        return Held(mask=mask, state=told["state"])


def _unchanged(base: Base) -> Overlay:
    from weightslab.engine.identity.overlay import Overlay

    return Overlay.over(base)


def _to_text(overlay: Overlay) -> str:
    """Return what a set changes in its base, as text for the index."""
    changed = Columns.of(*overlay.base.pick(overlay.changed_rows()))
    is_active = overlay.holds(changed)
    more = Columns.of(*columns_of_given(overlay.added))
    base = overlay.base
    told = {
        "digest": overlay.state.digest,
        "base": [base.active.digest, base.known.digest],
        "removed": given_of(changed.where(~is_active)),
        "added": [*given_of(changed.where(is_active)), *given_of(more)],
        "state": _state_text(overlay),
    }
    return json.dumps(told, separators=(",", ":"))


def _state_text(overlay: Overlay) -> str:
    """Return what samplers record of a set: count and lane sums."""
    first, second = overlay.state.sums
    return f"{overlay.state.count}:{first:016x}{second:016x}"
