"""Numbers of two tensors, taken block by block from their bytes: norms, cosine, what changed.

A block stays in the cache, so that each byte comes from memory once: it is hashed, decoded and
counted there. 32-bit blocks are summed in rows of 8,192 whose sums are added in 64 bits; a block with
NaN, Inf, or squares beyond what 32 bits hold is summed again in 64 bits, over the items that are finite
on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from weightslab.engine.errors import FormatError
from weightslab.engine.tensors.header import ITEM_BITS

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["BLOCK_ITEMS", "Sums", "Worker", "block_bytes", "decoded", "has_numbers"]

BLOCK_ITEMS: Final = (
    1 << 16
)  # 40 us of calls a block, 0.2 ms of work: smaller ones fit the cache and lose
_ROW: Final = 1 << 13  # BLAS sums up to 10,000 in one thread (OpenBLAS, kernel/x86_64/ddot.c)
_TINY: Final = 1e-20  # a sum of squares below this may have lost some to underflow
_NATIVE: Final = {
    "BOOL": np.uint8,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.float32,  # pairs of real and imaginary parts
}
# name -> exponent bits, mantissa bits, bias, how the special values are spelled
# (OCP "8-bit Floating Point Specification" and "Microscaling Formats" 5.3; FNUZ: arXiv 2206.02915)
_SMALL: Final = {
    "F8_E4M3": (4, 3, 7, "fn"),
    "F8_E5M2": (5, 2, 15, "ieee"),
    "F8_E4M3FNUZ": (4, 3, 8, "fnuz"),
    "F8_E5M2FNUZ": (5, 2, 16, "fnuz"),
}
_F4: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def has_numbers(dtype: str) -> bool:
    """Tell whether items of a dtype can be read as numbers here."""
    return dtype in _NATIVE or dtype in _SMALL or dtype in ("BF16", "F8_E8M0", "F4")


def block_bytes(dtype: str) -> int:
    """Return how many bytes a block of `BLOCK_ITEMS` items takes; of complex ones half as many."""
    bits = ITEM_BITS[dtype]
    return BLOCK_ITEMS * bits // 8 if dtype != "C64" else BLOCK_ITEMS * 4


def decoded(data: memoryview, dtype: str) -> Array:
    """Return the items as float32 where that is exact and fast, else as float64.

    Complex items become two numbers each. Integers beyond 2**53 are rounded.
    """
    if dtype in ("F32", "C64"):
        return np.frombuffer(data, np.float32)
    if dtype == "BF16":
        wide = np.frombuffer(data, np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "F16":
        return np.frombuffer(data, np.float16).astype(np.float32)
    if dtype in _NATIVE:
        return np.frombuffer(data, _NATIVE[dtype]).astype(np.float64)
    if dtype not in _TABLES:
        raise FormatError(f"items of {dtype!r:.40} cannot be read as numbers here")
    return _TABLES[dtype][np.frombuffer(data, np.uint8)].reshape(-1)


def _small_floats(exponent: int, mantissa: int, bias: int, special: str) -> Array:
    """Return the value of each byte of an 8-bit float."""
    values = np.zeros(256)
    for code in range(256):
        sign = -1.0 if code >> 7 else 1.0
        power, rest = (code >> mantissa) & ((1 << exponent) - 1), code & ((1 << mantissa) - 1)
        if power:
            number = math.ldexp(1 + rest / (1 << mantissa), power - bias)
        else:
            number = math.ldexp(rest / (1 << mantissa), 1 - bias)
        top = power == (1 << exponent) - 1
        is_minus_zero = code == 1 << 7
        full = rest == (1 << mantissa) - 1
        if (special == "fnuz" and is_minus_zero) or (special == "fn" and top and full):
            number = math.nan
        elif special == "ieee" and top:
            number = math.nan if rest else math.inf
        values[code] = sign * number
    return values


def _tables() -> dict[str, Array]:
    tables = {name: _small_floats(*form) for name, form in _SMALL.items()}
    powers = np.array([math.ldexp(1.0, code - 127) for code in range(255)] + [math.nan])
    halves = np.array([sign * value for sign in (1, -1) for value in _F4])
    pairs = np.array([[halves[code & 15], halves[code >> 4]] for code in range(256)])
    return {**tables, "F8_E8M0": powers, "F4": pairs}


_TABLES: Final = _tables()


@dataclass(slots=True)
class Sums:
    """What is known of two tensors, or of several pairs of them: sums that can be added.

    Squares and the product are over the items that are finite on both sides.
    """

    items: int = 0
    changed: int = 0
    old_square: float = 0.0
    new_square: float = 0.0
    difference_square: float = 0.0
    product: float = 0.0
    max_abs: float = 0.0
    old_nan: int = 0
    old_inf: int = 0
    new_nan: int = 0
    new_inf: int = 0

    def add(self, other: Sums) -> None:
        """Add what is known of further tensors."""
        for name in self.__slots__:
            if name != "max_abs":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_abs = max(self.max_abs, other.max_abs)


class Worker:
    """Adds blocks up; the room it works in is made once. One for each thread.

    Numbers may overflow on the way: call it where NumPy does not warn (`np.errstate`).
    """

    def __init__(self) -> None:
        self._room = np.empty(BLOCK_ITEMS, np.float32)
        self._sums = np.empty((4, BLOCK_ITEMS // _ROW), np.float32)

    def compare(self, sums: Sums, old: Array, new: Array, *, is_complex: bool = False) -> None:
        """Add a block of both sides to `sums`; the blocks have as many items each.

        Args:
            is_complex: two numbers are one item.
        """
        end = 0
        if old.dtype == new.dtype == np.float32 and not is_complex:
            end = old.size - old.size % _ROW
            if end and not self._fast(sums, old[:end], new[:end]):
                end = 0
        if end < old.size:
            _exactly(sums, old[end:], new[end:], is_complex=is_complex)

    def alone(self, sums: Sums, items: Array, *, is_new: bool) -> None:
        """Add a block that only one side has: its squares, NaN and Inf."""
        wide = items.astype(np.float64, copy=False)
        finite = np.isfinite(wide)
        nan = int(np.isnan(wide).sum())
        inf = wide.size - int(finite.sum()) - nan
        if nan or inf:
            wide = wide[finite]
        square = _dot(wide, wide)
        side = "new" if is_new else "old"
        for name, value in ((f"{side}_square", square), (f"{side}_nan", nan), (f"{side}_inf", inf)):
            setattr(sums, name, getattr(sums, name) + value)

    def _fast(self, sums: Sums, old: Array, new: Array) -> bool:
        """Sum rows in 32 bits; False, and nothing added, where that is not good enough."""
        flat = self._room[: old.size]
        np.subtract(new, old, out=flat)
        before, after, apart = (side.reshape(-1, _ROW) for side in (old, new, flat))
        found = self._sums[:, : len(apart)]
        _dot_rows(before, before, found[0])
        _dot_rows(after, after, found[1])
        _dot_rows(before, after, found[2])
        _dot_rows(apart, apart, found[3])
        # a few numbers: NumPy takes 10 us to sum them in 64 bits
        old_square, new_square, product, between = map(sum, found.tolist())
        is_finite = math.isfinite(old_square + new_square + between) and math.isfinite(product)
        if not is_finite or old_square < _TINY or new_square < _TINY:
            return False
        np.abs(flat, out=flat)  # which makes -0 the zero that has no bit set, too
        changed = int(np.count_nonzero(flat.view(np.uint32)))
        if changed and between < _TINY:
            return False
        sums.items += old.size
        sums.changed += changed
        sums.old_square += old_square
        sums.new_square += new_square
        sums.product += product
        sums.difference_square += between
        if changed:
            sums.max_abs = max(sums.max_abs, float(np.maximum.reduce(flat)))
        return True


def _dot_rows(one: Array, other: Array, out: Array) -> None:
    if hasattr(np, "vecdot"):  # NumPy 2.0: BLAS, half the time of einsum
        np.vecdot(one, other, out=out)
    else:
        np.einsum("ij,ij->i", one, other, out=out)


def _exactly(sums: Sums, old: Array, new: Array, *, is_complex: bool) -> None:
    sides = [side.astype(np.float64, copy=False) for side in (old, new)]
    nan = [np.isnan(side) for side in sides]
    finite = [np.isfinite(side) for side in sides]
    same = (sides[0] == sides[1]) | (nan[0] & nan[1])
    if is_complex:
        same = same.reshape(-1, 2).all(axis=1)
    sums.items += same.size
    sums.changed += int(same.size - np.count_nonzero(same))
    for side, bad, good in zip(("old", "new"), nan, finite, strict=True):
        num_nan = int(np.count_nonzero(bad))
        num_inf = good.size - int(np.count_nonzero(good)) - num_nan
        setattr(sums, f"{side}_nan", getattr(sums, f"{side}_nan") + num_nan)
        setattr(sums, f"{side}_inf", getattr(sums, f"{side}_inf") + num_inf)
    both = finite[0] & finite[1]
    if not both.all():
        sides = [np.where(both, side, 0.0) for side in sides]
    difference = sides[1] - sides[0]
    sums.old_square += _dot(sides[0], sides[0])
    sums.new_square += _dot(sides[1], sides[1])
    sums.product += _dot(sides[0], sides[1])
    sums.difference_square += _dot(difference, difference)
    parts = np.hypot(*difference.reshape(-1, 2).T) if is_complex else np.abs(difference)
    if parts.size:
        sums.max_abs = max(sums.max_abs, float(parts.max()))


def _dot(one: Array, other: Array) -> float:
    """Sum products in one thread: BLAS would wake others for a long one."""
    return float(np.einsum("i,i->", one, other)) if one.size else 0.0
