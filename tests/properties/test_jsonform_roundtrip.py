"""Tagged JSON: whatever can be stored comes back equal, with its types, through real JSON text."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    TruncatedError,
)
from weightslab.engine.jsonform import decode, encode, seal, seal_text, unseal, unseal_text

MODEST = settings(max_examples=150, deadline=None)

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
numbers = st.one_of(
    st.floats(width=32).map(np.float32),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.complex_numbers().map(np.complex128),
)
leaves = st.one_of(plain, numbers, st.binary(max_size=5))
keys = st.one_of(
    st.text(max_size=3), st.integers(), st.tuples(st.integers()), st.binary(max_size=2)
)
hashables = st.one_of(st.integers(), st.text(max_size=3), st.binary(max_size=2))


def containers(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.just("$tuple"), st.text(max_size=3)), inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.dictionaries(hashables, st.integers(), max_size=3).map(Counter),
        st.sets(hashables, max_size=3),
        st.frozensets(hashables, max_size=3),
    )


values = st.recursive(leaves, containers, max_leaves=8)
documents = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
records = st.dictionaries(
    st.text(max_size=4).filter(lambda key: key != "digest"), documents, min_size=1, max_size=4
)
tags = st.sampled_from(
    ["$tuple", "$dict", "$odict", "$counter", "$set", "$bytes", "$float", "$enum", "$numpy", "$x"]
)


def same(left, right):
    """Equal values of equal types in equal order; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, np.generic):
        return left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (left != left and right != right)  # noqa: PLR0124
        )
    return left == right


@MODEST
@given(values)
def test_value_survives_the_way_through_json_text(value):
    back = decode(json.loads(json.dumps(encode(value), allow_nan=False)))
    assert same(without_nan_signs(back), without_nan_signs(value))


def without_nan_signs(value):
    """There is one NaN in the stored form: its sign is not kept."""
    if type(value) is float and value != value:  # noqa: PLR0124
        return float("nan")
    if type(value) in (list, tuple):
        return type(value)(map(without_nan_signs, value))
    if type(value) in (dict, OrderedDict):
        return type(value)((key, without_nan_signs(item)) for key, item in value.items())
    return value


@MODEST
@given(values)
def test_encoding_is_stable(value):
    once = json.dumps(encode(value), sort_keys=False)
    assert json.dumps(encode(decode(json.loads(once))), sort_keys=False) == once


@MODEST
@given(st.dictionaries(st.one_of(tags, st.text(max_size=3)), documents, max_size=2))
def test_any_json_decodes_or_is_a_format_error(document):
    with contextlib.suppress(FormatError):
        decode(document)


@MODEST
@given(tags, documents)
def test_any_content_of_a_tag_decodes_or_is_a_format_error(tag, content):
    with contextlib.suppress(FormatError):
        decode({tag: content})


@MODEST
@given(records)
def test_sealed_record_comes_back_and_is_json_for_everybody(record):
    sealed = seal(record)
    found, digest = unseal(sealed, what="r")
    assert found == record
    assert json.loads(sealed) == {**record, "digest": digest}
    assert seal(found) == sealed


@MODEST
@given(records, st.data())
def test_no_flipped_bit_passes(record, data):
    sealed = bytearray(seal(record))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((DigestMismatchError, TruncatedError)):
        unseal(bytes(sealed), what="r")


@MODEST
@given(st.binary(max_size=200))
def test_garbage_is_never_a_record(garbage):
    with pytest.raises((TruncatedError, DigestMismatchError, InvalidManifestError)):
        unseal(garbage, what="r")


@MODEST
@given(st.text(max_size=50))
def test_sealed_text_comes_back_with_one_newline_at_its_end(text):
    assert unseal_text(seal_text(text), what="t") == text.rstrip("\n") + "\n"
