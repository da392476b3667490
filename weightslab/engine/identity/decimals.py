"""Telling canonical decimal texts from other texts: "17" is the integer 17, "017" is a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.texts import Texts

    Int64 = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

__all__ = ["INT64_MAX", "INT64_MIN", "as_int64", "split_decimals"]

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
_DECIMAL: Final = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z", re.ASCII)
_MAX_DIGITS: Final = 19  # of an int64; as many always fit in a uint64, too
_ZERO, _MINUS = 48, 45
_BLOCK: Final = 1 << 14


def as_int64(text: str) -> int | None:
    """Return the integer that this canonical decimal text is, None if it is none or too large."""
    if _DECIMAL.match(text) is None:
        return None
    value = int(text)
    return value if INT64_MIN <= value <= INT64_MAX else None


def split_decimals(texts: Texts) -> tuple[Int64, Texts]:
    """Return the canonical decimal texts in the int64 range as integers, and the other texts."""
    import numpy as np

    parts: list[tuple[Int64, Int64]] = []
    for at in range(0, len(texts), _BLOCK):
        starts, lengths = texts.spans(at, min(at + _BLOCK, len(texts)))
        rows = np.flatnonzero(_may_be(texts, starts, lengths))
        if rows.size:
            is_decimal, values = _parse(texts, starts[rows], lengths[rows])
            parts.append((at + rows[is_decimal], values[is_decimal]))
    if not any(rows.size for rows, _ in parts):
        return np.empty(0, np.int64), texts
    other = np.ones(len(texts), bool)
    other[np.concatenate([rows for rows, _ in parts])] = False
    return np.concatenate([values for _, values in parts]), texts.take(np.flatnonzero(other))


def _may_be(texts: Texts, starts: Int64, lengths: Int64) -> Bools:
    """Say which texts begin like a number and are not too long for one."""
    first = texts.data[starts]
    plausible: Bools = (first - _ZERO <= 9) | (first == _MINUS)  # noqa: PLR2004 - uint8 wraps round
    plausible &= (lengths > 0) & (lengths <= _MAX_DIGITS + 1)
    return plausible


def _parse(texts: Texts, starts: Int64, lengths: Int64) -> tuple[Bools, Int64]:
    """Return which of the texts are canonical, and the values; those of others mean nothing."""
    import numpy as np

    negative = texts.data[starts] == _MINUS
    starts, digits = starts + negative, lengths - negative
    lead_is_zero = texts.data[starts] == _ZERO
    good = (digits > 0) & (digits <= _MAX_DIGITS) & ~(lead_is_zero & ((digits > 1) | negative))
    values = np.zeros(starts.size, np.uint64)
    for k in range(min(int(digits.max()), _MAX_DIGITS)):
        inside = k < digits
        digit = texts.data.take(starts + k, mode="clip") - _ZERO  # uint8 wraps round
        good &= ~inside | (digit <= 9)  # noqa: PLR2004
        values = np.where(inside, values * np.uint64(10) + digit, values)
        if k == 2 and not good.any():  # names that begin with a date or in hex: the usual case  # noqa: PLR2004
            break
    good &= values <= np.where(negative, np.uint64(1 << 63), np.uint64(INT64_MAX))
    signed = values.view(np.int64)
    return good, np.where(negative, -signed, signed)
