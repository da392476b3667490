"""Sorting raw sample UIDs into columns: given as integers, integers given as text, other text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]

__all__ = ["Columns", "as_int64", "read_uids"]

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_EXACT_FLOAT: Final = 1 << 53  # from here on, neighbouring integers are the same float
_DECIMAL: Final = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z", re.ASCII)
_REMEDY: Final = "use integers or texts as sample UIDs"


@dataclass(frozen=True, slots=True)
class Columns:
    """Unique UIDs: int64 [n] sorted, int64 [m] sorted, UTF-8 texts sorted; no integer in two."""

    int64: Int64
    decimal_text: Int64
    texts: list[bytes]


def as_int64(text: str) -> int | None:
    """Return the integer that this canonical decimal text is, None if it is none or too large."""
    if _DECIMAL.match(text) is None:
        return None
    value = int(text)
    return value if _INT64_MIN <= value <= _INT64_MAX else None


def read_uids(uids: Any) -> Columns:
    """Read UIDs of any supported container into columns.

    Raises: IdentityError naming position, type and remedy of a UID that cannot be one, or of two
        UIDs that would become the same sample (1 and "1").
    """
    import numpy as np

    values = _materialise(uids)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.dtype != np.uint64:
        empty = np.empty(0, np.int64)
        return Columns(_unique(values.astype(np.int64, copy=False).ravel()), empty, [])
    items = values.ravel().tolist() if isinstance(values, np.ndarray) else values
    fast = _all_ints(items)
    if fast is not None:
        return Columns(_unique(fast), np.empty(0, np.int64), [])
    return _classify(items)


def _materialise(uids: Any) -> Any:
    """Return a numpy array or a list of the UIDs."""
    import numpy as np

    kind = type(uids)
    if isinstance(uids, (str, bytes, bytearray)):
        raise IdentityError(
            f"the sample UIDs are one {kind.__name__}, {uids[:40]!r}", hint="pass a list of UIDs"
        )
    top = kind.__module__.partition(".")[0]
    if top == "torch" and hasattr(uids, "detach"):
        return np.asarray(uids.detach().cpu().tolist(), dtype=object if not uids.numel() else None)
    if isinstance(uids, range):
        if not uids or (min(uids) >= _INT64_MIN and max(uids) <= _INT64_MAX):
            return np.arange(uids.start, uids.stop, uids.step, dtype=np.int64)
        return list(uids)
    if top == "pandas" and hasattr(uids, "to_numpy"):
        uids = uids.to_numpy()
    if isinstance(uids, np.ndarray):
        return uids
    if not isinstance(uids, Iterable):
        raise IdentityError(
            f"the sample UIDs are a {kind.__module__}.{kind.__qualname__}, which is no collection",
            hint="pass a list, set, array or generator of UIDs",
        )
    return list(uids)


def _unique(values: Int64) -> Int64:
    """Return the sorted unique values; a sorted array (the usual case) is not sorted again."""
    import numpy as np

    if values.size < 2 or bool((values[1:] > values[:-1]).all()):  # noqa: PLR2004
        return np.array(values, dtype=np.int64)
    values = np.sort(values)
    keep = np.empty(values.size, bool)
    keep[0] = True
    np.not_equal(values[1:], values[:-1], out=keep[1:])
    return np.ascontiguousarray(values[keep])


def _all_ints(items: list[Any]) -> Int64 | None:
    """Return int64 [n] if every item is exactly an int in range; None otherwise."""
    import numpy as np

    if not items or set(map(type, items)) != {int}:
        return None
    try:
        return np.fromiter(items, np.int64, len(items))
    except OverflowError:
        return None


def _classify(items: list[Any]) -> Columns:
    import numpy as np

    ints: list[int] = []
    decimals: list[int] = []
    texts: set[bytes] = set()
    large: set[bytes] = set()  # integers outside int64, as text
    for at, item in enumerate(items):
        value = _scalar(item, at)
        if isinstance(value, int):
            if _INT64_MIN <= value <= _INT64_MAX:
                ints.append(value)
            else:
                large.add(b"%d" % value)
        elif (number := as_int64(value)) is not None:
            decimals.append(number)
        else:
            texts.add(_utf8(value, at))
    given = _unique(np.array(ints, np.int64))
    as_text = _unique(np.array(decimals, np.int64))
    both = np.intersect1d(given, as_text)
    _refuse_both([*map(str, both[:1].tolist()), *(m.decode() for m in sorted(large & texts)[:1])])
    return Columns(given, as_text, sorted(texts | large))


def _refuse_both(clash: list[str]) -> None:
    if clash:
        raise IdentityError(
            f"the sample UIDs hold both {clash[0]} and {clash[0]!r}: CSV, HDF5 and JSON do not keep"
            " them apart, so they would become one sample",
            hint="use only integers or only texts",
        )


def _scalar(item: Any, at: int) -> int | str:
    """Return one UID as int or str."""
    kind = type(item)
    if kind is int or kind is str:
        return item  # type: ignore[no-any-return]
    if (kind.__module__ == "numpy" and hasattr(item, "item")) or (
        kind.__module__ == "torch" and hasattr(item, "detach") and item.ndim == 0
    ):
        item = item.item()
        kind = type(item)
    if issubclass(kind, bool):
        raise _bad(item, at, kind)
    if issubclass(kind, int):
        return int.__pos__(item)
    if issubclass(kind, str):
        return str.__str__(item)
    if issubclass(kind, bytes):
        return _from_bytes(item, at)
    if issubclass(kind, float):
        return _from_float(item, at)
    raise _bad(item, at, kind)


def _bad(item: Any, at: int, kind: type) -> IdentityError:
    shown = f" ({item!r})" if item is None or kind in (bool, float) else ""
    return IdentityError(
        f"active_data_uids[{at}] is a {kind.__module__}.{kind.__qualname__}{shown},"
        " which cannot be a sample UID",
        hint=_REMEDY,
    )


def _from_float(item: float, at: int) -> int:
    if item != item or item in (float("inf"), float("-inf")) or item != int(item):  # noqa: PLR0124
        raise _bad(item, at, float)
    if abs(item) >= _EXACT_FLOAT:
        raise IdentityError(
            f"active_data_uids[{at}] is the float {item!r}: floats this large stand for several"
            " integers",
            hint=_REMEDY,
        )
    return int(item)


def _from_bytes(item: bytes, at: int) -> str:
    try:
        return bytes(item).decode("utf-8")
    except UnicodeDecodeError as error:
        raise IdentityError(
            f"active_data_uids[{at}] is bytes that are not UTF-8 text ({item[:20]!r})",
            hint="decode them with the right encoding, or use their hex form",
        ) from error


def _utf8(text: str, at: int) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise IdentityError(
            f"active_data_uids[{at}] is a text with half a character (a lone surrogate): {text!a}",
            hint="decode file names with the right encoding",
        ) from error
