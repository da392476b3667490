"""Tagged JSON and sealed records: literal forms, and what is refused."""

from __future__ import annotations

import enum
import json
import sys
from collections import Counter, OrderedDict, deque
from typing import NamedTuple

import numpy as np
import pytest

from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    NotStorableError,
    TruncatedError,
)
from weightslab.engine.jsonform import (
    decode,
    encode,
    parse_json,
    seal,
    seal_text,
    unseal,
    unseal_text,
)


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Outer:
    class Mode(enum.Enum):
        ON = "on"


class Point(NamedTuple):
    x: int
    y: int


FORMS = [
    (None, None),
    (True, True),
    (-7, -7),
    (10**400, 10**400),
    (0.1, 0.1),
    ("", ""),
    ("na\u00efve \u2603", "na\u00efve \u2603"),
    ([1, [2]], [1, [2]]),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ({}, {}),
    (float("inf"), {"$float": "inf"}),
    (float("-inf"), {"$float": "-inf"}),
    ((1, "a"), {"$tuple": [1, "a"]}),
    ((), {"$tuple": []}),
    (b"\x00\xff", {"$bytes": "AP8="}),
    ({1: "a", "1": "b"}, {"$dict": [[1, "a"], ["1", "b"]]}),
    ({"$tuple": []}, {"$dict": [["$tuple", []]]}),
    ({(1, 2): 3}, {"$dict": [[{"$tuple": [1, 2]}, 3]]}),
    (OrderedDict([("b", 1), ("a", 2)]), {"$odict": [["b", 1], ["a", 2]]}),
    (Counter("aab"), {"$counter": [["a", 2], ["b", 1]]}),
    ({2, 1}, {"$set": [1, 2]}),
    (frozenset("ba"), {"$frozenset": ["a", "b"]}),
    (Colour.RED, {"$enum": [f"{__name__}:Colour", "RED"]}),
    (Level.HIGH, {"$enum": [f"{__name__}:Level", "HIGH"]}),
    (Outer.Mode.ON, {"$enum": [f"{__name__}:Outer.Mode", "ON"]}),
    (np.float32(1.5), {"$numpy": ["<f4", "0000c03f"]}),
    (np.int64(-1), {"$numpy": ["<i8", "ffffffffffffffff"]}),
    (np.bool_(True), {"$numpy": ["|b1", "01"]}),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=range(len(FORMS)))
def test_value_has_this_form_and_comes_back_with_its_type(value, form):
    assert encode(value) == form
    back = decode(json.loads(json.dumps(form)))
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back_as_nan():
    assert encode(float("nan")) == {"$float": "nan"}
    assert decode({"$float": "nan"}) != decode({"$float": "nan"})


def test_minus_zero_keeps_its_sign():
    assert str(decode(json.loads(json.dumps(encode(-0.0))))) == "-0.0"


def test_order_of_a_dict_is_kept():
    assert list(decode(encode({2: "b", 1: "a"}))) == [2, 1]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "builtins.object"),
        (deque([1]), "collections.deque"),
        (Point(1, 2), f"{__name__}.Point"),
        (np.zeros(3), "numpy.ndarray"),
        (np.datetime64("2020-01-01"), "numpy.datetime64"),
        (1j, "builtins.complex"),
        (print, "builtins.builtin_function_or_method"),
        (Colour, "enum.EnumType" if sys.version_info >= (3, 11) else "enum.EnumMeta"),
    ],
)
def test_what_has_no_form_is_refused_with_path_and_type(value, named):
    with pytest.raises(NotStorableError) as caught:
        encode({"outer": [1, {"inner": value}]}, path="state")
    assert str(caught.value).startswith(f"state.outer[1].inner is a {named}, which has no stored")


def test_list_that_holds_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NotStorableError, match="more than 100 levels deep; a container that holds"):
        encode(loop)


def test_leaf_is_asked_first_in_both_directions():
    class Tensor:
        pass

    def out(value, path):
        return {"$tensor": path} if isinstance(value, Tensor) else NotImplemented

    def back(tag, content, path):
        return f"tensor of {content}" if tag == "$tensor" else NotImplemented

    form = encode({"m": (Tensor(), 1)}, leaf=out, path="s")
    assert form == {"m": {"$tuple": [{"$tensor": "s.m[0]"}, 1]}}
    assert decode(form, leaf=back) == {"m": ("tensor of s.m[0]", 1)}


@pytest.mark.parametrize(
    "form",
    [
        {"$unknown": 1},
        {"$float": "1.0"},
        {"$float": []},
        {"$bytes": "@@"},
        {"$bytes": 1},
        {"$tuple": 5},
        {"$dict": [[1]]},
        {"$dict": [[[1], 2]]},
        {"$set": [[1]]},
        {"$numpy": ["<f4", "0"]},
        {"$numpy": ["<f4", "0000"]},
        {"$numpy": ["|O", "0000000000000000"]},
        {"$numpy": ["<M8[s]", "0000000000000000"]},
        {"$numpy": "<f4"},
        {"$enum": ["weightslab.engine.errors:CheckpointError", "args"]},
        {"$enum": ["os:environ", "HOME"]},
        {"$enum": "x"},
    ],
    ids=str,
)
def test_malformed_tag_is_a_format_error_that_names_its_path(form):
    with pytest.raises(FormatError, match=r"^\$\.a\[0\] has|^the enum "):
        decode({"a": [form]})


def test_enum_of_a_module_that_is_not_loaded_is_not_imported():
    assert "tabnanny" not in sys.modules
    with pytest.raises(FormatError, match="import tabnanny before loading; nothing is imported"):
        decode({"$enum": ["tabnanny:NannyNag", "X"]})
    assert "tabnanny" not in sys.modules


def test_unknown_member_of_a_known_enum_is_an_error():
    with pytest.raises(FormatError, match="'BLUE'"):
        decode({"$enum": [f"{__name__}:Colour", "BLUE"]})


# ---------------------------------------------------------------- sealed records
RECORD = {"b": {"y": 2, "x": [1, 2]}, "a": 1}
SEALED = (
    b'{\n"a":1,\n"b":{\n "x":[1,2],\n "y":2},\n'
    b'"digest":"sha256:95bd39a2abe2b83809882d838572bc8ae388a099768e1a9ef9b16ce054209095"\n}\n'
)


def test_sealed_record_has_this_form():
    assert seal(RECORD) == SEALED
    assert json.loads(SEALED)["b"] == {"x": [1, 2], "y": 2}


def test_unseal_returns_record_and_digest():
    assert unseal(memoryview(SEALED), what="m.json") == (
        RECORD,
        "sha256:95bd39a2abe2b83809882d838572bc8ae388a099768e1a9ef9b16ce054209095",
    )


def test_every_flipped_bit_of_a_record_is_noticed():
    for position in range(len(SEALED)):
        for bit in range(8):
            damaged = bytearray(SEALED)
            damaged[position] ^= 1 << bit
            with pytest.raises((DigestMismatchError, TruncatedError)):
                unseal(bytes(damaged), what="m.json")


def test_every_cut_of_a_record_is_noticed():
    for length in range(len(SEALED)):
        with pytest.raises(TruncatedError, match=rf"m.json has no digest at its end \({length} by"):
            unseal(SEALED[:length], what="m.json")


def test_bytes_after_the_seal_are_noticed():
    with pytest.raises(TruncatedError):
        unseal(SEALED + b"\n", what="m.json")


@pytest.mark.parametrize("value", [float("nan"), object(), {1}])
def test_record_that_is_no_json_is_refused(value):
    with pytest.raises(NotStorableError, match="a record cannot be written as JSON"):
        seal({"a": value})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[1]", "is not a JSON object"),
        (b"{", "is not valid JSON"),
        (b'{"a":1,"a":2}', "the same key twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":"\xff"}', "is not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is not valid JSON"),
        (b'{"a":' + b"9" * 10_000 + b"}", "is not valid JSON"),
    ],
    ids=["list", "cut", "duplicate", "nan", "infinity", "utf-8", "deep", "digits"],
)
def test_json_is_read_strictly(data, reason):
    if data.endswith(b"99}") and not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("this Python has no limit of digits")
    with pytest.raises(InvalidManifestError, match=reason):
        parse_json(data, what="m.json")


# ---------------------------------------------------------------- sealed text
TEXT = b"lr: 0.1\n# sha256:82aa77fd6ad7a28946f961a4d300c204776ebcca4b684b31c4ba57f7eb2dfb31\n"


def test_sealed_text_ends_with_its_digest_as_a_comment():
    sealed = seal_text("lr: 0.1\n")
    assert sealed == TEXT
    assert unseal_text(sealed, what="c.yaml") == "lr: 0.1\n"


def test_every_flipped_bit_of_a_text_is_noticed():
    sealed = seal_text("lr: 0.1\n")
    for position in range(len(sealed)):
        for bit in range(8):
            damaged = bytearray(sealed)
            damaged[position] ^= 1 << bit
            with pytest.raises((DigestMismatchError, TruncatedError)):
                unseal_text(bytes(damaged), what="c.yaml")


def test_edited_text_says_that_it_was_edited():
    with pytest.raises(DigestMismatchError, match=r"c.yaml is damaged or was edited"):
        unseal_text(seal_text("lr: 0.1\n").replace(b"0.1", b"0.2"), what="c.yaml")
    with pytest.raises(TruncatedError, match=r"c.yaml has no digest line at its end"):
        unseal_text(b"lr: 0.1\n", what="c.yaml")
