import math

import numpy as np
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.identity.config import describe_config

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
NUMBERS = st.one_of(st.integers(), st.floats())
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.binary(max_size=4))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(TEXT.map("k".__add__), inner, max_size=3),
    ),
    max_leaves=10,
)
CONFIGS = st.dictionaries(TEXT.map("k".__add__), VALUES, max_size=4)


def same(left, right):
    """The equality rules, written independently and recursively."""
    kinds = [isinstance(v, (bool, str, bytes, type(None))) for v in (left, right)]
    if any(kinds):
        return type(left) is type(right) and left == right
    if isinstance(left, dict) or isinstance(right, dict):
        return (
            isinstance(left, dict)
            and isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(left[k], right[k]) for k in left)
        )
    if isinstance(left, (list, tuple)) or isinstance(right, (list, tuple)):
        return (
            isinstance(left, (list, tuple))
            and isinstance(right, (list, tuple))
            and len(left) == len(right)
            and all(map(same, left, right))
        )
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right and np.signbit(float(left == 0 and left)) == np.signbit(
        float(right == 0 and right)
    )


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_digests_are_equal_exactly_for_equal_values(left, right):
    digests = [describe_config({"a": v}).digest for v in (left, right)]
    assert (digests[0] == digests[1]) == same_after_nfc(left, right)


def same_after_nfc(left, right):
    import unicodedata

    def normal(value):
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        if isinstance(value, dict):
            return {normal(k): normal(v) for k, v in value.items()}
        return [normal(v) for v in value] if isinstance(value, (list, tuple)) else value

    return same(normal(left), normal(right))


@settings(max_examples=80, deadline=None)
@given(CONFIGS)
def test_what_yaml_keeps_has_the_digest_of_the_original(config):
    first = describe_config(config)
    again = describe_config(yaml.safe_load(yaml.safe_dump(first.plain, allow_unicode=True)))
    assert again.digest == first.digest


@settings(max_examples=80, deadline=None)
@given(CONFIGS)
def test_order_of_keys_and_kind_of_sequence_do_not_count(config):
    def turned(value):
        if isinstance(value, dict):
            return {k: turned(v) for k, v in reversed(value.items())}
        return tuple(map(turned, value)) if isinstance(value, list) else value

    assert describe_config(turned(config)).digest == describe_config(config).digest
