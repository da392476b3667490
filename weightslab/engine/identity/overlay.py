"""What has become of a base: the samples discarded, restored and added since, in O(what changed)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from weightslab.engine.identity.base import Base, State, clear_bits, has_bits, rows_of, set_bits
from weightslab.engine.identity.facets import keys_of, sums_of
from weightslab.engine.identity.texts import Texts
from weightslab.engine.identity.uids import Columns, sort_integers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.facets import Key, Values

    Int64 = npt.NDArray[np.int64]
    Bits = npt.NDArray[np.uint8]
    Bools = npt.NDArray[np.bool_]
    Given = dict[Key, int | str]

__all__ = ["Overlay", "columns_of_given", "given_of", "state_of"]

_SHOWN: Final = 3
_SMALL: Final = 4096  # added samples that are kept in a dict whatever the size of the base


@dataclass(slots=True, kw_only=True)
class Overlay:
    """A base and what changed since; not thread-safe.

    Attributes:
        base: what everything is relative to.
        gone: one bit a row of the base: discarded; None: no row.
        added: samples beyond the base: key -> UID as it was given.
        dropped: samples that were added and then discarded.
        facets: facet -> key -> value of all known samples. Never changed for a key, so copies share it.
        state: of the active samples.
    """

    base: Base
    gone: Bits | None
    state: State
    added: Given = field(default_factory=dict)
    dropped: Given = field(default_factory=dict)
    facets: dict[str, Values] = field(default_factory=dict)

    @classmethod
    def over(cls, base: Base) -> Overlay:
        """Return the unchanged base."""
        gone = None if base.gone is None else base.gone.copy()
        return cls(base=base, gone=gone, state=base.active, facets=dict(base.facets))

    def copy(self) -> Overlay:
        """Return a copy; O(added), and an eighth of a byte a row."""
        return replace(
            self,
            gone=None if self.gone is None else self.gone.copy(),
            added=dict(self.added),
            dropped=dict(self.dropped),
            facets=dict(self.facets),
        )

    # ------------------------------------------------------------ changes
    def discard(self, change: Columns) -> None:
        """Make active samples discarded ones.

        Raises: ValueError, with nothing changed, if some are not active.
        """
        rows = self.base.find(change)
        outside = _part(change, rows < 0)
        bad = (rows >= 0) & has_bits(self.gone, rows)
        bad[rows < 0] = [key not in self.added for key in outside]
        _refuse(change, bad, "cannot be discarded: they are not in the set")
        inside = rows[rows >= 0]
        if inside.size:
            set_bits(self._own_bits(), inside)
        for key in outside:
            self.dropped[key] = self.added.pop(key)
        self.state = self.state.plus(state_of(change, self.facets), -1)

    def restore(self, change: Columns) -> None:
        """Make discarded samples active again.

        Raises: ValueError, with nothing changed, if some were not discarded.
        """
        rows = self.base.find(change)
        outside = _part(change, rows < 0)
        bad = (rows >= 0) & ~has_bits(self.gone, rows)
        bad[rows < 0] = [key not in self.dropped for key in outside]
        _refuse(change, bad, "cannot be restored: they were not discarded from this set")
        inside = rows[rows >= 0]
        if inside.size:
            clear_bits(self._own_bits(), inside)
        for key in outside:
            self.added[key] = self.dropped.pop(key)
        self.state = self.state.plus(state_of(change, self.facets))

    def add(self, change: Columns, facets: dict[str, Values]) -> None:
        """Add samples that were never known.

        Raises: ValueError, with nothing changed, if some are in the set, or were discarded.
        """
        self._refuse_known(change)
        for name, values in facets.items():
            self.facets[name] = {**self.facets.get(name, {}), **values}
        gain = state_of(change, self.facets)
        if len(self.added) + len(change) <= max(_SMALL, len(self.base) // 10):
            self.added.update(zip(keys_of(change), given_of(change), strict=True))
            self.state = self.state.plus(gain)
        else:
            self._merge(change, gain)

    def _refuse_known(self, change: Columns) -> None:
        import numpy as np

        rows = self.base.find(change)
        discarded = (rows >= 0) & has_bits(self.gone, rows)
        active = (rows >= 0) & ~discarded
        if self.added or self.dropped:
            keys = keys_of(change)
            active |= np.array([key in self.added for key in keys], bool)
            discarded |= np.array([key in self.dropped for key in keys], bool)
        _refuse(change, active, "cannot be added: they are in the set already")
        _refuse(change, discarded, "cannot be added: they were discarded; restore them")

    def _own_bits(self) -> Bits:
        import numpy as np

        if self.gone is None:
            self.gone = np.zeros((len(self.base) + 7) // 8, np.uint8)
        return self.gone

    # ------------------------------------------------------------ a new base
    def begin_here(self) -> None:
        """Make what is now the state of the base, if only rows of it changed; costs a copy of the bits."""
        if not self.added and not self.dropped:
            gone = None if self.gone is None else self.gone.copy()
            self.base = self.base.with_gone(gone, self.state)

    def settle(self) -> None:
        """Make what is a new base if more than a tenth of the old one changed; O(n) then."""
        if self.num_changes() > max(_SMALL, len(self.base) // 10):
            self._merge(Columns.of(*columns_of_given({})), State())

    def _merge(self, change: Columns, gain: State) -> None:
        """Take everything known, and `change`, into a base of their own."""
        import numpy as np

        gone = self.discarded()
        extra = columns_of_given({**self.added, **self.dropped})
        known = self.base.known
        known = known.plus(state_of(Columns.of(*extra), self.facets)).plus(gain)
        old = self.base
        base = Base.of(
            Columns.of(
                sort_integers(np.concatenate([old.int64, extra[0], change.int64])),
                sort_integers(np.concatenate([old.decimal_text, extra[1], change.decimal_text])),
                Texts.join([old.texts, extra[2], change.texts]),
            ),
            known=known,
            facets=dict(self.facets),
        )
        bits = np.zeros((len(base) + 7) // 8, np.uint8)
        set_bits(bits, base.find(Columns.of(*gone)))
        state = self.state.plus(gain)
        self.base = base.with_gone(bits.copy(), state)
        self.gone, self.state, self.added, self.dropped = bits, state, {}, {}

    # ------------------------------------------------------------ questions
    def num_changes(self) -> int:
        """Return how many samples are not as the base says."""
        return self.changed_rows().size + len(self.added) + len(self.dropped)

    def changed_rows(self) -> Int64:
        """Return the rows that are active here and not in the base, or the other way round."""
        return rows_of(_differing(self.gone, self.base.gone))

    def rows_against(self, other: Overlay) -> Int64:
        """Return the rows of the common base that are active in one and discarded in the other."""
        assert self.base is other.base, "rows of two bases have nothing to do with each other"
        return rows_of(_differing(self.gone, other.gone))

    def holds(self, wanted: Columns) -> Bools:
        """Say of each UID, in the order of `keys_of`, whether it is active."""
        rows = self.base.find(wanted)
        active: Bools = (rows >= 0) & ~has_bits(self.gone, rows)
        if self.added:
            active[rows < 0] = [key in self.added for key in _part(wanted, rows < 0)]
        return active

    def is_active(self, key: Key, uid: int | str) -> bool:
        """Say whether one sample is active."""
        if key in self.added:
            return True
        row = self.base.find_one(uid)
        return row >= 0 and (self.gone is None or not int(self.gone[row >> 3]) >> (row & 7) & 1)

    def active(self) -> tuple[Int64, Int64, Texts]:
        """Return the active UIDs in columns, texts in no order; O(n)."""
        import numpy as np

        if self.gone is None or not self.gone.any():
            inside = self.base.int64, self.base.decimal_text, self.base.texts
        else:
            present = np.unpackbits(~self.gone, count=len(self.base), bitorder="little")
            inside = self.base.pick(np.flatnonzero(present))
        return _joined(inside, columns_of_given(self.added))

    def discarded(self) -> tuple[Int64, Int64, Texts]:
        """Return the UIDs that were discarded from the set, in columns."""
        return _joined(self.base.pick(rows_of(self.gone)), columns_of_given(self.dropped))


def state_of(columns: Columns, facets: dict[str, Values]) -> State:
    """Return the state of a set of these samples."""
    keys = keys_of(columns) if facets else []
    return State(
        count=len(columns),
        sums=columns.sums,
        facets=tuple((name, sums_of(facets[name], keys)) for name in sorted(facets)),
    )


def given_of(columns: Columns) -> list[int | str]:
    """Return the UIDs of columns as they were given, in the order of `keys_of`."""
    numbers: list[int | str] = [*columns.int64.tolist(), *map(str, columns.decimal_text.tolist())]
    return [*numbers, *(text.decode() for text in columns.texts.to_list())]


def _part(columns: Columns, chosen: Bools) -> list[Key]:
    """Return the keys of the chosen UIDs; none in no time, which is the usual case."""
    return keys_of(columns.where(chosen)) if chosen.any() else []


def _refuse(columns: Columns, bad: Bools, why: str) -> None:
    if bad.any():
        given = given_of(columns)
        at = bad.nonzero()[0].tolist()
        shown = ", ".join(repr(given[i]) for i in at[:_SHOWN])
        more = f" and {len(at) - _SHOWN} more" if len(at) > _SHOWN else ""
        raise ValueError(f"{len(at)} of {len(given)} samples {why}: {shown}{more}")


def columns_of_given(given: Given) -> tuple[Int64, Int64, Texts]:
    """Return a few UIDs, told apart by how they were given, in columns."""
    import numpy as np

    pairs = given.items()
    return (
        np.array(sorted(k for k, uid in pairs if isinstance(uid, int)), np.int64),
        np.array(sorted(k for k, uid in pairs if isinstance(k, int) and k != uid), np.int64),
        Texts.of(sorted(k for k, _ in pairs if isinstance(k, bytes))),
    )


def _joined(
    left: tuple[Int64, Int64, Texts], right: tuple[Int64, Int64, Texts]
) -> tuple[Int64, Int64, Texts]:
    import numpy as np

    numbers = [
        sort_integers(np.concatenate([a, b])) if b.size else a
        for a, b in zip(left[:2], right[:2], strict=True)
    ]
    texts = Texts.join([left[2], right[2]]) if len(right[2]) else left[2]
    return numbers[0], numbers[1], texts


def _differing(left: Bits | None, right: Bits | None) -> Bits | None:
    if left is None or right is None:
        return left if right is None else right
    return left ^ right
