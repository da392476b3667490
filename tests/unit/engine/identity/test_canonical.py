"""The encoding and the digests are frozen: these literals may never change."""

import pytest

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.canonical import (
    combine,
    component_digest,
    encode_canonical,
    exp_hash_of,
    float_text,
    int_text,
)


def test_encoding_is_length_prefixed_in_utf8_bytes():
    assert encode_canonical([None, "a", ["\u00e9", []]]) == b"l3:ns1:al2:s2:\xc3\xa9l0:"


def test_component_digest_golden():
    tree = [None, "a", ["\u00e9", []]]
    assert component_digest("test", tree) == (
        "wl1:sha256:2a3faded82f4319aea780a7350114594c9ba71cb375cc83d4e7763c5082ef35e"
    )


def test_kind_separates_equal_trees():
    assert component_digest("model", ["x"]) != component_digest("config", ["x"])


def test_combined_digest_of_nothing_golden():
    combined = combine(None, None, None)
    assert combined == "wl1:sha256:10207b2950befd1c30037edcaa379ddf1e5cb325a20d428191988305df24a224"
    assert exp_hash_of(combined) == "10207b2950befd1c"


def test_absent_components_do_not_swap():
    digest = component_digest("model", ["x"])
    found = {
        combine(digest, None, None),
        combine(None, digest, None),
        combine(None, None, digest),
        combine(None, None, None, digest),
        combine(None, None, None),
    }
    assert len(found) == 5


@pytest.mark.slow
@pytest.mark.slow
def test_deep_nesting_needs_no_recursion():
    tree: list = []
    for _ in range(100_000):
        tree = [tree]
    assert encode_canonical(tree).endswith(b"l1:l0:")


def test_lone_surrogate_is_refused():
    with pytest.raises(NotCanonicalError, match="lone surrogate"):
        encode_canonical(["\ud800"])


@pytest.mark.parametrize("leaf", [1, 1.0, True, b"x", ("a",), {"a": 1}])
def test_other_types_are_refused(leaf):
    with pytest.raises(NotCanonicalError, match="None, str and list"):
        encode_canonical([leaf])


def test_a_list_that_holds_itself_is_refused():
    tree: list = ["a"]
    tree.append(tree)
    with pytest.raises(NotCanonicalError, match="holds itself"):
        encode_canonical(tree)


def test_a_shared_list_is_no_cycle():
    inner = ["x"]
    assert encode_canonical([inner, inner]) == b"l2:l1:s1:xl1:s1:x"


def test_numbers_have_one_text_each():
    assert float_text(0.1) == "0x1.999999999999ap-4"
    assert float_text(-0.0) == "-0x0.0p+0"
    assert float_text(float("nan")) == float_text(-float("nan")) == "nan"
    assert int_text(-12) == "-12"


def test_integers_beyond_the_printing_limit_are_decimal():
    text = int_text(-(10**9000) - 7)
    assert text == "-1" + "0" * 8999 + "7"
