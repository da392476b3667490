import numpy as np
import pytest
import torch

from weightslab.engine.errors import FormatError, IdentityError
from weightslab.engine.identity.mix import mix_int, mix_text
from weightslab.engine.identity.samples import SampleSet

pd = pytest.importorskip("pandas")


@pytest.mark.parametrize(
    ("uid", "lanes"),
    [
        (0, ("b1589bb375ea898b", "99aca4f875f8e9b5")),
        (1, ("5e719bd66b44da36", "f06ebb9c5891173b")),
        (-1, ("4ea47fa8f8270e45", "ba1cc0821192bfc1")),
        (2**63 - 1, ("a34316eddd621439", "e4145a039478ab03")),
        (-(2**63), ("22ff477a2a07413d", "ea8f320a4a743290")),
        (b"", ("6809e667f3bcc908", "b967ae8584caa73b")),
        (b"a", ("c026f03affbc5b4f", "c62972142c2923a9")),
        (b"abcdefgh", ("dee86c92e956a88f", "d54270c3e30acf84")),
        (b"abcdefghi", ("ea9bc394e5009855", "3a2a332dc70e73df")),
        ("\u00e9.png".encode(), ("b153f53ae4ed7ad8", "5e50cc917bd29a2e")),
    ],
)
def test_mix_golden(uid, lanes):
    found = mix_int(uid) if isinstance(uid, int) else mix_text(uid)
    assert tuple(f"{lane:016x}" for lane in found) == lanes


@pytest.mark.parametrize(
    ("uids", "state", "digits"),
    [
        ([], (0, 0, 0), "820c6ccb72f6fd757e94de0aab50bb78f276c1f78bd485ec9a42461164e42598"),
        (
            [1, 2, 3],
            (3, 4177411658571484068, 13802441246375982184),
            "d33ac1c082537a05f4d56c1fad1a86c5a7f367cbf1906dd1b878d30aa5bc400c",
        ),
        (
            ["a", "b"],
            (2, 4259541029782786404, 9739151506699550425),
            "3d20cfc386e839ba4ae320c3765329ad6c4f50f4130124948ba720f14426643e",
        ),
        (
            [1, "2", "x"],
            (3, 15294806197666065300, 5540801936487124105),
            "2b66f3530dd222b302ffbeba0cb3c2c24c8e948a2e27b1960735a440121cabed",
        ),
    ],
)
def test_set_state_and_digest_golden(uids, state, digits):
    found = SampleSet.from_uids(uids)
    assert (found.state, found.digest) == (state, f"wl1:sha256:{digits}")


ONE_TWO_THREE = SampleSet.from_uids([1, 2, 3]).digest


@pytest.mark.parametrize(
    "uids",
    [
        (3, 2, 1),
        {1, 2, 3},
        frozenset({1, 2, 3}),
        [1, 2, 2, 3, 3],
        range(1, 4),
        dict.fromkeys([1, 2, 3]).keys(),
        {"a": 1, "b": 2, "c": 3}.values(),
        np.array([3, 1, 2]),
        np.array([[1, 2], [3, 3]], dtype=np.uint8),
        np.array([1, 2, 3], dtype=np.uint64),
        np.array([1.0, 2.0, 3.0]),
        [np.int64(1), np.int8(2), 3],
        torch.tensor([1, 2, 3]),
        [torch.tensor(1), 2, 3],
        pd.Index([1, 2, 3]),
        pd.Series([1.0, 2.0, 3.0]),
        ["1", "2", "3"],
        np.array(["1", "2", "3"]),
        np.array([b"1", b"2", b"3"]),
        np.array([1, "2", 3], dtype=object),
        [1, "2", 3.0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_and_spellings_of_one_set_are_equal(uids):
    assert SampleSet.from_uids(uids).digest == ONE_TWO_THREE


def test_a_generator_is_read_once():
    assert SampleSet.from_uids(i for i in (3, 2, 1)).digest == ONE_TWO_THREE


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, 4], [2, 3]),
        ([1, 2, 4, 7], []),
        (["ab", "c"], ["a", "bc"]),
        (["a,b"], ["a", "b"]),
        (["a\0b"], ["a", "b"]),
        (["a"], ["a\0"]),
        (["007"], ["7"]),
        (["-0"], ["0"]),
        (["+1"], ["1"]),
        (["\u0661"], ["1"]),
        ([2**64], [0]),
        ([""], []),
        ([0], []),
        (["\u00e9"], ["e\u0301"]),
        (["A.png"], ["a.png"]),
    ],
)
def test_different_sets_differ(left, right):
    assert SampleSet.from_uids(left).digest != SampleSet.from_uids(right).digest


@pytest.mark.parametrize(
    "uids",
    [[1, "1"], ["1", 1], {1, "1"}, np.array([1, "1"], dtype=object), [2**70, str(2**70)]],
)
def test_int_and_its_text_in_one_set_are_refused(uids):
    with pytest.raises(IdentityError, match=r"both (1|1180591620717411303424) and '"):
        SampleSet.from_uids(uids)


@pytest.mark.parametrize(
    ("uids", "words"),
    [
        ([1, None], r"active_data_uids\[1\] is a builtins.NoneType"),
        ([float("nan")], r"active_data_uids\[0\] is a builtins.float \(nan\)"),
        ([0.5], "float"),
        ([1e300], "stand for several"),
        ([True], r"builtins.bool \(True\)"),
        (np.array([True, False]), "bool"),
        ([[1, 2]], "builtins.list"),
        ([object()], "builtins.object"),
        ([b"\xff"], "not UTF-8"),
        (["\ud800"], "lone surrogate"),
        ("abc", "one str, 'abc'"),
        (b"abc", "one bytes"),
        (5, "is no collection"),
    ],
)
def test_what_cannot_be_a_uid_is_named(uids, words):
    with pytest.raises(IdentityError, match=words):
        SampleSet.from_uids(uids)


def test_discarded_samples_are_not_in_the_set():
    active = SampleSet.from_uids([1, 2, 3, "x"], discarded=["3", "x", 99])
    assert active.digest == SampleSet.from_uids([1, 2]).digest


def test_iteration_gives_uids_back_as_they_came():
    assert list(SampleSet.from_uids(["b", "10", 3, "9", -1, "a"])) == [-1, 3, "9", "10", "a", "b"]


def test_membership_follows_identity():
    samples = SampleSet.from_uids([1, "2", "x"])
    assert all(uid in samples for uid in (1, "1", 1.0, 2, b"x", "x"))
    assert not any(uid in samples for uid in (3, "y", None, True, [1]))


def test_difference_says_what_was_added_and_removed():
    old, new = SampleSet.from_uids([1, 2, "a"]), SampleSet.from_uids(["2", "3", "b"])
    added, removed = old.difference(new)
    assert (list(added), list(removed)) == (["3", "b"], [1, "a"])


def test_columns_round_trip():
    samples = SampleSet.from_uids([5, "7", "x", "\u00e9", 2**64])
    int64, decimal_text, texts = samples.overlay().active()
    again = SampleSet.from_columns(int64=int64, decimal_text=decimal_text, texts=texts.ascending())
    assert again.digest == samples.digest
    assert list(again) == [5, "7", "18446744073709551616", "x", "\u00e9"]


@pytest.mark.parametrize(
    "columns",
    [
        {"int64": [2, 1]},
        {"int64": [1, 1]},
        {"int64": [1], "decimal_text": [1]},
        {"texts": [b"b", b"a"]},
        {"texts": [b"12"]},
        {"texts": [b"\xff"]},
    ],
)
def test_columns_that_no_set_wrote_are_refused(columns):
    with pytest.raises(FormatError):
        SampleSet.from_columns(**columns)


def test_storage_columns_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        SampleSet.from_uids([1, 2]).overlay().active()[0][0] = 9


def test_the_callers_array_stays_writable_and_apart():
    raw = np.array([1, 2, 3])
    samples = SampleSet.from_uids(raw)
    raw[0] = 9
    assert samples.digest == ONE_TWO_THREE
