"""YAML of plain values: the fast parser says what the slow one says, and refuses what it refuses."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.repository import plain_yaml

KEYS = st.text(st.sampled_from("ab_-.: #'\"é1"), min_size=1, max_size=6)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    KEYS,
    st.sampled_from(
        ["1e-3", "yes", "null", "~", "2026-01-01", "0x10", "1_0", "=", "<<", "", " x "]
    ),
)
PLAIN = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(plain=PLAIN)
@settings(max_examples=60, deadline=None)
def test_both_parsers_agree(plain):
    text = f"# name\n{plain_yaml.dump(plain)}# sha256:ab\n"
    slow = yaml.load(text, Loader=plain_yaml._Loader)
    assert repr(plain_yaml.load(text)) == repr(slow)


def test_the_usual_config_takes_the_fast_parser():
    text = plain_yaml.dump({"a": [1, {"b": 0.5}], "c": {}, "d": [], "e": "it's", "f": None})
    assert plain_yaml._is_simple(text)
    assert not plain_yaml._is_simple(text.replace("0.5", "[0.5]"))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x\n",
        "a: !!python/name:os.system\n",
        "a: 1\na: 2\n",
        "- " * 300 + "1\n",
        "a: [[1]]\n" * 2,
    ],
)
def test_aliases_tags_repeated_keys_and_deep_values_are_refused(text):
    with pytest.raises(yaml.YAMLError):
        plain_yaml.load(text)
