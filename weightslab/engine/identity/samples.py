"""The data as a component: a set of sample UIDs, its additive state and its digest.

State = (count, two sums modulo 2^64 of a 128-bit mix per UID): adding or removing k samples changes
it in O(k), and equals a rebuild. The digest is SHA-256 over the state and the facets.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, IdentityError
from weightslab.engine.identity.base import Base
from weightslab.engine.identity.decimals import split_decimals
from weightslab.engine.identity.facets import key_of, read_facets
from weightslab.engine.identity.overlay import Overlay, columns_of_given, given_of, state_of
from weightslab.engine.identity.textarrays import is_utf8
from weightslab.engine.identity.texts import Texts
from weightslab.engine.identity.uids import Columns, read_uids, sort_integers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]

__all__ = ["SampleSet", "relative_to"]

_SLICE: Final = 1 << 14  # UIDs made into Python objects at a time while iterating


class SampleSet:
    """The active samples of an experiment: built once, then changed in O(change).

    samples = SampleSet.from_uids(uids)
    samples.discard(mislabelled)
    manager.update_experiment_hash(active_data_uids=samples)

    A canonical decimal text in the int64 range is the same sample as that integer; how it was
    given is kept for storage and iteration. Integers outside int64 are kept as their decimal text.

    Each change happens wholly or, with an error, not at all. Membership is exact. `frozen()` gives a
    copy that refuses changes; the experiment keeps such copies. Thread-safe.
    """

    __slots__ = ("__weakref__", "_frozen", "_lock", "_overlay")

    def __init__(self, overlay: Overlay, *, frozen: bool = False) -> None:
        self._overlay = overlay
        self._frozen = frozen
        self._lock = threading.Lock()

    @classmethod
    def from_uids(
        cls,
        uids: Any,
        *,
        discarded: Any = None,
        tags: Mapping[Any, Any] | None = None,
        labels: Mapping[Any, Any] | None = None,
    ) -> SampleSet:
        """Return the set of active UIDs: `uids` without `discarded`.

        Args:
            uids: list, tuple, set, generator, dict view, range, numpy array, pandas Index or
                Series, pyarrow array, torch tensor, h5py dataset of integers, texts, bytes (UTF-8)
                or integral floats; duplicates count once, order does not count. A `SampleSet` is
                copied.
            discarded: the same; UIDs that are not in `uids` are left out of account. They can be
                restored.
            tags: makes tags count: UID -> list of texts, in any order.
            labels: makes labels count: UID -> anything that a config may hold.
        Raises: IdentityError for None, NaN, bool and other objects, naming position and type, for
            a collection that holds both 1 and "1", and for values of facets without a
            deterministic form.
        """
        if isinstance(uids, SampleSet):
            if tags is not None or labels is not None:
                raise TypeError(
                    "a SampleSet has its tags and labels; build it from UIDs with others"
                )
            made = uids.copy()
        else:
            facets = read_facets({"tags": tags, "labels": labels})
            columns = read_uids(uids)
            base = Base.of(columns, known=state_of(columns, facets), facets=facets)
            made = cls(Overlay.over(base))
            _refuse_strangers(base, facets)
        if discarded is not None:
            _begin_without(made._overlay, discarded)
        return made

    @classmethod
    def from_columns(
        cls, *, int64: Any = (), decimal_text: Any = (), texts: Texts | Sequence[bytes] = ()
    ) -> SampleSet:
        """Return the set that has these storage columns.

        Args:
            int64, decimal_text: int64 [n], not copied.
            texts: all other UIDs.
        Returns: a frozen set.
        Raises: FormatError if a column is not sorted and unique, or two hold the same sample.
        """
        rest = texts if isinstance(texts, Texts) else Texts.of(texts)
        columns = checked_columns(int64, decimal_text, rest)
        return cls(Overlay.over(Base.of(columns, known=state_of(columns, {}))), frozen=True)

    # ------------------------------------------------------------ identity
    @property
    def digest(self) -> str:
        """`wl1:sha256:...` of the set as the component `data`; O(1)."""
        return self._overlay.state.digest

    @property
    def state(self) -> tuple[int, int, int]:
        """Count and both lane sums."""
        state = self._overlay.state
        return state.count, *state.sums

    @property
    def facets(self) -> tuple[str, ...]:
        """Names of what counts besides the UIDs: `labels`, `tags`."""
        return tuple(name for name, _ in self._overlay.state.facets)

    @property
    def is_frozen(self) -> bool:
        """True if the set refuses changes."""
        return self._frozen

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleSet) and self.digest == other.digest

    def __hash__(self) -> int:
        if not self._frozen:
            raise TypeError("a SampleSet that may change has no hash; use .digest, or .frozen()")
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"SampleSet({len(self)} samples, {self.digest[:18]}...)"

    # ------------------------------------------------------------ changing
    def discard(self, uids: Any) -> None:
        """Take samples out; O(change).

        Args:
            uids: any collection of UIDs; repetitions count once.
        Raises: ValueError if one of them is not in the set; TypeError if the set is frozen;
            IdentityError for what cannot be a UID. Nothing is changed then.
        """
        change = self._change_of(uids)
        with self._lock:
            self._overlay.discard(change)

    def restore(self, uids: Any) -> None:
        """Bring discarded samples back; O(change).

        Raises: ValueError if one of them was not discarded from this set; as `discard`.
        """
        change = self._change_of(uids)
        with self._lock:
            self._overlay.restore(change)

    def add(
        self,
        uids: Any,
        *,
        tags: Mapping[Any, Any] | None = None,
        labels: Mapping[Any, Any] | None = None,
    ) -> None:
        """Add new samples; O(change), and O(n) each time the set has grown by a tenth.

        Args:
            uids: any collection of UIDs; repetitions count once.
            tags, labels: values of the new samples, if these facets count in this set.
        Raises: ValueError if one of them is in the set, or was discarded (restore it); as `discard`.
        """
        change = self._change_of(uids)
        facets = read_facets({"tags": tags, "labels": labels})
        _refuse_strangers(Base.of(change, known=state_of(change, {})), facets)
        with self._lock:
            if not set(facets) <= set(self._overlay.facets):
                raise ValueError("this set was built without these facets; build it anew with them")
            self._overlay.add(change, facets)

    def _change_of(self, uids: Any) -> Columns:
        if self._frozen:
            raise TypeError("this SampleSet is frozen: change a .copy() of it")
        return _columns_of(uids)

    # ------------------------------------------------------------ copies
    def frozen(self) -> SampleSet:
        """Return a copy that refuses changes; itself if it is frozen.

        O(changes), and an eighth of a byte a sample. Where more than a tenth changed since the set
        was built, what it is now becomes the new ground, once.
        """
        if self._frozen:
            return self
        with self._lock:
            self._overlay.settle()
            return SampleSet(self._overlay.copy(), frozen=True)

    def with_discarded(self, discarded: Any) -> SampleSet:
        """Return a copy that also knows these samples, as discarded ones; active ones stay active."""
        made, gone = self.copy(), _columns_of(discarded)
        overlay = made._overlay
        known = overlay.holds(gone) | (overlay.base.find(gone) >= 0)
        fresh = gone.where(~known)
        made.add(fresh)
        made.discard(fresh)
        return made

    def copy(self) -> SampleSet:
        """Return a copy that can be changed."""
        return SampleSet(self.overlay())

    def overlay(self) -> Overlay:
        """Return what the set is made of, as a copy: for storage."""
        with self._lock:
            return self._overlay.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.overlay(), self._frozen)

    # ------------------------------------------------------------ questions
    def __len__(self) -> int:
        return self._overlay.state.count

    def __contains__(self, uid: object) -> bool:
        """Say whether the sample is in the set, in O(log n); what cannot be a UID is not."""
        if type(uid) is not int and type(uid) is not str:
            try:
                (uid,) = given_of(read_uids([uid]))
            except IdentityError:
                return False
        elif type(uid) is int and not -(1 << 63) <= uid < 1 << 63:
            uid = str(uid)
        try:
            key = key_of(uid)
        except UnicodeEncodeError:
            return False  # half a character: no UID
        with self._lock:
            return self._overlay.is_active(key, uid)

    def __iter__(self) -> Iterator[int | str]:
        """Yield the UIDs as they were given: integers by value, decimal text by value, then text.

        What is yielded is the set as it was at the beginning.
        """
        int64, decimal_text, texts = self.overlay().active()
        for column, give in ((int64, int), (decimal_text, str)):
            for at in range(0, column.size, _SLICE):
                yield from map(give, column[at : at + _SLICE].tolist())
        texts = texts.ascending()
        for at in range(0, len(texts), _SLICE):
            for text in texts.to_list(at, at + _SLICE):
                yield text.decode("utf-8")

    @property
    def discarded(self) -> SampleSet:
        """The samples that were discarded from this set and can be restored, as a set; O(n)."""
        return _plain_set(Columns.of(*self.overlay().discarded()))

    def difference(self, other: SampleSet) -> tuple[SampleSet, SampleSet]:
        """Return what changes on the way from this set to `other`: (added, removed).

        O(changes) for two sets that go back to one base (copies of one set; experiments whose files
        are linked); O(n) otherwise.
        """
        before, after = self.overlay(), other.overlay()
        if before.base is not after.base:
            come, gone = Columns.of(*after.active()), Columns.of(*before.active())
            return (
                _plain_set(come.where(~before.holds(come))),
                _plain_set(gone.where(~after.holds(gone))),
            )
        rows = Columns.of(*before.base.pick(before.rows_against(after)))
        is_new = after.holds(rows)
        return (
            _plain_set(_with(rows.where(is_new), after.added, before.added)),
            _plain_set(_with(rows.where(~is_new), before.added, after.added)),
        )


def relative_to(samples: SampleSet, other: SampleSet) -> SampleSet:
    """Return the set as `other` with changes, where these are few; else the set itself. O(n).

    So that UIDs which are given whole each time are stored as what changed.
    """
    mine, theirs = samples.overlay(), other.overlay()
    if mine.base is theirs.base or mine.facets or theirs.facets:
        return samples
    added, removed = other.difference(samples)
    if len(added) + len(removed) > len(theirs.base) // 10:
        return samples
    near = other.copy()
    near.discard(removed)
    come = _columns_of(added)
    known = theirs.base.find(come) >= 0
    near.restore(come.where(known))
    near.add(come.where(~known))
    same = [a.size for a in mine.active()[:2]] == [b.size for b in near.overlay().active()[:2]]
    return near.frozen() if same else samples  # else numbers are given as text, and were not, there


def _refuse_strangers(base: Base, facets: dict[str, Any]) -> None:
    for name, values in facets.items():
        for key in values:
            uid = key.decode() if isinstance(key, bytes) else key
            if base.find_one(uid) < 0:
                raise IdentityError(f"{name} has a value for {uid!r}, which is not in the set")


def _begin_without(overlay: Overlay, discarded: Any) -> None:
    """Discard what is in the set, as if it had been built so."""
    gone = _columns_of(discarded)
    present = overlay.holds(gone)
    if present.any():
        overlay.discard(gone.where(present))
        overlay.begin_here()


def _columns_of(uids: Any) -> Columns:
    if isinstance(uids, Columns):
        return uids
    if isinstance(uids, SampleSet):
        return Columns.of(*uids.overlay().active())
    return read_uids(uids)


def _plain_set(columns: Columns) -> SampleSet:
    """Return a frozen set without facets."""
    return SampleSet(Overlay.over(Base.of(columns, known=state_of(columns, {}))), frozen=True)


def _with(columns: Columns, plus: dict[Any, Any], minus: dict[Any, Any]) -> Columns:
    """Return `columns` and the UIDs of `plus` that are not in `minus`."""
    import numpy as np

    more = {key: uid for key, uid in plus.items() if key not in minus}
    if not more:
        return columns
    ints, decimals, texts = columns_of_given(more)
    return Columns.of(
        sort_integers(np.concatenate([columns.int64, ints])),
        sort_integers(np.concatenate([columns.decimal_text, decimals])),
        Texts.join([columns.texts, texts]),
    )


def _revive(overlay: Overlay, frozen: bool) -> SampleSet:
    return SampleSet(overlay, frozen=frozen)


def checked_columns(int64: Any, decimal_text: Any, texts: Texts) -> Columns:
    """Return storage columns after checking that a set could have written them.

    Raises: FormatError.
    """
    import numpy as np

    numbers, decimals = np.asarray(int64, np.int64), np.asarray(decimal_text, np.int64)
    for name, array in (("int64", numbers), ("decimal_text", decimals)):
        if array.ndim != 1 or not bool((array[1:] > array[:-1]).all()):
            raise FormatError(f"the column {name} of a sample set is not sorted and unique")
    if not texts.is_ascending():
        raise FormatError("the column texts of a sample set is not sorted and unique")
    if decimals.size and np.intersect1d(numbers, decimals, assume_unique=True).size:
        raise FormatError("one sample is in two columns of a sample set")
    if not is_utf8(texts):
        raise FormatError("the column texts of a sample set is not UTF-8")
    misplaced, _ = split_decimals(texts)
    if misplaced.size:
        raise FormatError(f"'{misplaced[0]}' belongs to the column decimal_text")
    return Columns.of(numbers, decimals, texts, ascends=True)
