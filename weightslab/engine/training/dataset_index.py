"""Where in the data set a sample stands: UID -> index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from weightslab.engine.identity.base import Base
from weightslab.engine.identity.containers import open_container
from weightslab.engine.identity.facets import key_of, keys_of
from weightslab.engine.identity.overlay import state_of
from weightslab.engine.identity.texts import Texts
from weightslab.engine.identity.uids import Columns, read_uids

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from weightslab.engine.training.order import ActiveRows

    Int64 = npt.NDArray[np.int64]

__all__ = ["DatasetIndex", "UidIsIndex", "index_of"]


class DatasetIndex(Protocol):
    """Knows the position of each sample in the data set."""

    def find(self, active: ActiveRows) -> Int64:
        """Return the position of each row, int64 [n].

        Raises: ValueError for a sample that has none.
        """


class UidIsIndex:
    """The UID is the position: `dataset[uid]`."""

    def find(self, active: ActiveRows) -> Int64:
        # docstring inherited
        found = active.integers()
        if len(active.texts) or (found.size and int(found.min()) < 0):
            row = found.size if len(active.texts) else int(found.argmin())
            raise ValueError(
                f"the sample {active.uid(row)!r} is no index of a data set;"
                " pass dataset_uids, the UIDs in the order of the data set"
            )
        return found


def index_of(dataset_uids: Any) -> DatasetIndex:
    """Return the index of a data set whose item i is the sample `dataset_uids[i]`; O(n).

    Args:
        dataset_uids: a UID for each item, in the order of the items: list, tuple, range, numpy array,
            pandas Series, torch tensor.
    Raises: ValueError if one stands there twice; IdentityError for what cannot be a UID.
    """
    if not isinstance(dataset_uids, (range, list, np.ndarray)):  # these are read in order, in bulk
        whole = getattr(dataset_uids, "tolist", None)
        dataset_uids = list(dataset_uids) if whole is None else whole()
    opened = open_container(dataset_uids)
    if isinstance(opened, np.ndarray):
        return _Integers(opened)
    columns = read_uids(dataset_uids)
    if len(columns.texts) == len(columns) == len(opened):
        return _AllTexts(columns)
    items = [text.decode() for text in opened.to_list()] if isinstance(opened, Texts) else opened
    if not len(columns.texts) and isinstance(opened, Texts):
        return _Integers(np.fromiter(map(int, items), np.int64, len(items)))
    return _Mixed(items)


class _Integers:
    def __init__(self, uids: Int64) -> None:
        self._places = np.argsort(uids, kind="stable")
        self._sorted = uids[self._places]
        twice = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if twice.size:
            raise _repeated(int(self._sorted[twice[0]]))

    def find(self, active: ActiveRows) -> Int64:
        # docstring inherited
        found = np.full(len(active), -1, np.int64)
        wanted = active.integers()
        if self._places.size and wanted.size:
            at = np.minimum(self._sorted.searchsorted(wanted), self._places.size - 1)
            found[: wanted.size] = np.where(self._sorted[at] == wanted, self._places[at], -1)
        return _complete(found, active)


class _AllTexts:
    """Rows of a base that is nothing but texts are in the order in which these were given."""

    def __init__(self, columns: Columns) -> None:
        self._base = Base.of(columns, known=state_of(columns, {}))

    def find(self, active: ActiveRows) -> Int64:
        # docstring inherited
        wanted = Columns.of(active.int64, active.decimal_text, active.texts)
        return _complete(self._base.find(wanted), active)


class _Mixed:
    def __init__(self, uids: Sequence[Any]) -> None:
        self._places: dict[int | bytes, int] = {}
        for at, uid in enumerate(uids):
            key = key_of(uid) if type(uid) is str else keys_of(read_uids([uid]))[0]
            if self._places.setdefault(key, at) != at:
                raise _repeated(uid)

    def find(self, active: ActiveRows) -> Int64:
        # docstring inherited
        keys = [*active.integers().tolist(), *active.texts.to_list()]
        found = np.fromiter((self._places.get(key, -1) for key in keys), np.int64, len(keys))
        return _complete(found, active)


def _complete(found: Int64, active: ActiveRows) -> Int64:
    if (found < 0).any():
        uid = active.uid(int((found < 0).argmax()))
        raise ValueError(f"the sample {uid!r} is not in dataset_uids")
    return found


def _repeated(uid: Any) -> ValueError:
    return ValueError(f"dataset_uids has {uid!r} twice; each item needs a UID of its own")
