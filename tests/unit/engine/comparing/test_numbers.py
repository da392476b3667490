"""Numbers of two tensors: the same as NumPy in 64 bits gives them, for every dtype."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.comparing.numbers import (
    BLOCK_ITEMS,
    Sums,
    Worker,
    block_bytes,
    decoded,
    has_numbers,
)
from weightslab.engine.comparing.results import TensorNumbers
from weightslab.engine.tensors.dtypes import dtype_name
from weightslab.engine.tensors.header import ITEM_BITS


def numbers(old, new, dtype="F32"):
    worker, sums = Worker(), Sums()
    step = block_bytes(dtype)
    sides = [memoryview(side.tobytes()) for side in (old, new)]
    with np.errstate(all="ignore"):
        for start in range(0, len(sides[0]), step):
            blocks = [decoded(side[start : start + step], dtype) for side in sides]
            worker.compare(sums, *blocks, is_complex=dtype == "C64")
    return TensorNumbers.of(sums)


def naive(old, new):
    a, b = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
    both = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    x, y = a[both], b[both]
    norms = np.sqrt((x * x).sum()), np.sqrt((y * y).sum())
    between = np.sqrt(((y - x) ** 2).sum())
    return {
        "num_items": a.size,
        "l2_old": norms[0],
        "l2_new": norms[1],
        "l2_difference": between,
        "relative": between / norms[0] if norms[0] else (None if between else 0.0),
        "cosine": (x * y).sum() / (norms[0] * norms[1]) if norms[0] * norms[1] else None,
        "max_abs": np.abs(y - x).max(initial=0.0),
        "fraction_changed": 1 - same.mean(),
        "num_nan_old": np.isnan(a).sum(),
        "num_inf_old": np.isinf(a).sum(),
        "num_nan_new": np.isnan(b).sum(),
        "num_inf_new": np.isinf(b).sum(),
    }


def assert_close(found, expected):
    for name, value in expected.items():
        shown = getattr(found, name)
        if value is None or shown is None:
            assert shown == value, name
        else:
            assert shown == pytest.approx(value, rel=2e-5, abs=1e-30), name


@settings(max_examples=60, deadline=None)
@given(
    size=st.one_of(st.integers(1, 40), st.sampled_from([8192, 8193, BLOCK_ITEMS, BLOCK_ITEMS + 5])),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1.0, 1e-25, 1e25, 1e-12]),
    changed=st.sampled_from([0.0, 0.01, 1.0]),
    specials=st.lists(
        st.tuples(st.booleans(), st.sampled_from([math.nan, math.inf, -math.inf, -0.0])), max_size=4
    ),
)
def test_32_bit_numbers_are_those_of_numpy_in_64_bits(size, seed, scale, changed, specials):
    rng = np.random.default_rng(seed)
    old = (rng.standard_normal(size) * scale).astype(np.float32)
    new = np.where(rng.random(size) < changed, old + np.float32(0.1 * scale), old)
    new = new.astype(np.float32)
    for is_new, value in specials:
        (new if is_new else old)[rng.integers(size)] = value
    assert_close(numbers(old, new), naive(old, new))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("F64", np.float64), ("F16", np.float16), ("I8", np.int8), ("I64", np.int64), ("BOOL", bool)],
)
def test_other_dtypes_have_the_numbers_of_numpy(dtype, kind):
    rng = np.random.default_rng(0)
    old, new = ((rng.standard_normal(3000) * 5).astype(kind) for _ in range(2))
    assert_close(numbers(old, new, dtype), naive(old, new))


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_each_byte_is_the_8_bit_float_that_torch_reads(name):
    dtype = getattr(torch, name)
    codes = torch.arange(256, dtype=torch.uint8)
    found = decoded(memoryview(codes.numpy().tobytes()), dtype_name(dtype))
    np.testing.assert_array_equal(found, codes.view(dtype).to(torch.float64).numpy())


def test_bfloat16_is_read_exactly():
    values = torch.randn(500).to(torch.bfloat16)
    found = decoded(memoryview(values.view(torch.uint8).numpy().tobytes()), "BF16")
    np.testing.assert_array_equal(found, values.float().numpy())


def test_a_byte_of_float4_is_two_numbers_the_low_half_first():
    assert decoded(memoryview(bytes([0x2A])), "F4").tolist() == [-1.0, 1.0]


def test_complex_items_are_compared_as_one_each():
    old = np.array([1 + 1j, 2 + 0j, 0j], np.complex64)
    new = np.array([1 + 1j, 2 + 3j, 4 + 3j], np.complex64)
    found = numbers(old, new, "C64")
    assert (found.num_items, found.fraction_changed, found.max_abs) == (3, 2 / 3, 5.0)
    assert found.l2_old == pytest.approx(math.sqrt(6))


def test_huge_numbers_have_no_norm_instead_of_an_infinite_one():
    old = np.array([1e200, 1.0])
    assert numbers(old, old, "F64").l2_old is None


def test_all_dtypes_of_the_format_are_known_or_refused():
    unknown = [name for name in ITEM_BITS if not has_numbers(name)]
    assert unknown == ["F6_E2M3", "F6_E3M2"]


def test_a_difference_whose_square_is_lost_in_32_bits_is_found():
    old = np.zeros(8192, np.float32)
    old[0] = 1e-9
    new = old.copy()
    new[1] = 1e-30
    assert numbers(old, new).l2_difference == pytest.approx(1e-30)
