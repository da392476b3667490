"""Keys: what is one, what is not, and what the errors say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.storage import LocalStore, MemoryStore
from weightslab.engine.storage.store import byte_views, check_key, check_prefix


def test_key_is_split_at_its_slashes():
    assert check_key("checkpoints/3f2a/experiment.json") == (
        "checkpoints",
        "3f2a",
        "experiment.json",
    )


@pytest.mark.parametrize(("prefix", "parts"), [("", ()), ("a", ("a",)), ("a/b/", ("a", "b"))])
def test_prefix_may_end_with_a_slash_or_be_the_whole_store(prefix, parts):
    assert check_prefix(prefix) == parts


@pytest.mark.parametrize("prefix", ["/", "//", "a//", "../", "a/../"])
def test_bad_prefix_is_refused(prefix):
    with pytest.raises(ValueError, match="is not a key"):
        check_prefix(prefix)


@pytest.mark.parametrize("call", [check_key, check_prefix])
def test_key_that_is_no_text_is_a_type_error(call):
    with pytest.raises(TypeError, match="is a str, not bytes"):
        call(b"key")


def test_error_names_key_and_part():
    with pytest.raises(
        ValueError, match=r"'a/\.\./b' is not a key: the part '\.\.' is not allowed"
    ):
        check_key("a/../b")


@pytest.mark.parametrize("key", [".tmp", "a.tmp", ".a.tmpx", "1:x", "ab:c", "...", "a..b", "~"])
def test_harmless_lookalikes_are_keys(key):
    assert check_key(key) == (key,)


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "local"])
@pytest.mark.parametrize("key", ["", "/"])
def test_the_store_itself_is_not_deleted(tmp_path, make, key):
    store = make() if make else LocalStore(tmp_path)
    with pytest.raises(ValueError, match=r"the store itself|is not a key"):
        store.delete(key)


def test_empty_parts_are_left_out_of_the_views():
    assert [bytes(view) for view in byte_views([b"", b"a", bytearray(), memoryview(b"b")])] == [
        b"a",
        b"b",
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab./\\:\0", max_size=8))
def test_whatever_is_a_key_stays_below_the_root(key):
    try:
        parts = check_key(key)
    except ValueError:
        return
    assert "/".join(parts) == key
    assert not {"", ".", ".."} & set(parts)
    assert not any(bad in key for bad in "\\\0")
