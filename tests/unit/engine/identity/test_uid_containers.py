"""UIDs in every container that people have them in; the same set has the same digest."""

import h5py
import numpy as np
import pytest
import torch

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.samples import SampleSet

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

NUMBERS = [3, -1, 2**40]
TEXTS = ["a/1.png", "\u00fc", "", "b" * 20]

NUMBER_CONTAINERS = {
    "list": lambda: NUMBERS,
    "int32 and big endian": lambda: np.array(NUMBERS, dtype=">i8"),
    "strided": lambda: np.array([3, 0, -1, 0, 2**40, 0])[::2],
    "0-d items": lambda: list(np.array(NUMBERS)),
    "float": lambda: np.array(NUMBERS, dtype=float),
    "masked without a mask": lambda: np.ma.array(NUMBERS),
    "pandas Series": lambda: pd.Series(NUMBERS, index=[9, 8, 7]),
    "pandas Index": lambda: pd.Index(NUMBERS),
    "pandas Int64": lambda: pd.Series(NUMBERS, dtype="Int64"),
    "pandas Float64": lambda: pd.Series(NUMBERS, dtype="Float64"),
    "pandas category": lambda: pd.Series([*NUMBERS, 3], dtype="category"),
    "pandas object": lambda: pd.Series(NUMBERS, dtype=object),
    "pandas arrow": lambda: pd.Series(NUMBERS, dtype="int64[pyarrow]"),
    "arrow": lambda: pa.array(NUMBERS),
    "arrow chunked": lambda: pa.chunked_array([[3], [-1, 2**40]]),
    "arrow dictionary": lambda: pa.array([*NUMBERS, 3]).dictionary_encode(),
    "arrow slice": lambda: pa.array([0, *NUMBERS])[1:],
    "torch": lambda: torch.tensor(NUMBERS),
    "torch float": lambda: torch.tensor(NUMBERS, dtype=torch.float64),
    "dict keys": lambda: dict.fromkeys(NUMBERS),
    "text": lambda: [str(n) for n in NUMBERS],
    "numpy text": lambda: np.array([str(n) for n in NUMBERS]),
}
TEXT_CONTAINERS = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "set": lambda: set(TEXTS),
    "dict values": lambda: dict(enumerate(TEXTS)).values(),
    "generator": lambda: (text for text in TEXTS),
    "numpy U": lambda: np.array(TEXTS),
    "numpy U, big endian": lambda: np.array(TEXTS, dtype=">U20"),
    "numpy S": lambda: np.array([t.encode() for t in TEXTS]),
    "numpy object": lambda: np.array(TEXTS, dtype=object),
    "numpy StringDType": lambda: np.array(TEXTS, dtype=np.dtypes.StringDType()),
    "2-d": lambda: np.array(TEXTS).reshape(2, 2),
    "bytes": lambda: [t.encode() for t in TEXTS],
    "bytes and str": lambda: [TEXTS[0].encode(), *TEXTS[1:]],
    "np.str_": lambda: list(np.array(TEXTS)),
    "pandas str": lambda: pd.Series(TEXTS, dtype="str"),
    "pandas string": lambda: pd.Index(TEXTS, dtype="string"),
    "pandas python string": lambda: pd.Series(TEXTS, dtype=pd.StringDtype("python")),
    "pandas object": lambda: pd.Series(TEXTS, dtype=object),
    "pandas category": lambda: pd.Categorical([*TEXTS, ""]),
    "arrow": lambda: pa.array(TEXTS),
    "arrow large": lambda: pa.array(TEXTS, pa.large_string()),
    "arrow view": lambda: pa.array(TEXTS, pa.string_view()),
    "arrow binary": lambda: pa.array([t.encode() for t in TEXTS]),
    "arrow chunked": lambda: pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "arrow no chunk twice": lambda: pa.chunked_array([TEXTS, [], TEXTS]),
    "arrow slice": lambda: pa.array(["x", *TEXTS, "y"])[1:-1],
    "arrow dictionary": lambda: pa.chunked_array([pa.array(TEXTS * 2).dictionary_encode()]),
}


@pytest.mark.parametrize("name", NUMBER_CONTAINERS)
def test_numbers_in_any_container_are_one_set(name):
    found = SampleSet.from_uids(NUMBER_CONTAINERS[name]())
    assert found.digest == SampleSet.from_uids([-1, 3, 2**40]).digest
    assert len(found) == 3


@pytest.mark.parametrize("name", TEXT_CONTAINERS)
def test_texts_in_any_container_are_one_set(name):
    found = SampleSet.from_uids(TEXT_CONTAINERS[name]())
    assert list(found) == ["", "a/1.png", "b" * 20, "\u00fc"]
    assert found.digest == SampleSet.from_uids(frozenset(TEXTS)).digest


def test_datasets_of_an_h5_file_are_read(tmp_path):
    with h5py.File(tmp_path / "uids.h5", "w") as file:
        file["text"], file["numbers"] = TEXTS, NUMBERS
        assert SampleSet.from_uids(file["text"]) == SampleSet.from_uids(TEXTS)
        assert SampleSet.from_uids(file["text"][()]) == SampleSet.from_uids(TEXTS)
        assert SampleSet.from_uids(file["numbers"]) == SampleSet.from_uids(NUMBERS)


@pytest.mark.parametrize(
    "texts",
    [["a\0b", "c"], ["\0"], ["a", "a\0"], ["x" * 5000, "y"], ["\u00e9", "e\u0301"], ["", "a"]],
    ids=["nul", "only nul", "nul at the end", "long", "accents", "empty"],
)
def test_odd_texts_come_back_as_they_were(texts):
    samples = SampleSet.from_uids(texts)
    assert set(samples) == set(texts)
    assert all(text in samples for text in texts)
    assert samples == SampleSet.from_uids([t.encode() for t in texts])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pd.Series([1.0, float("nan")]), r"\[1\] is a missing value"),
        (lambda: pd.Series([1, None], dtype="Int64"), r"\[1\] is a missing value"),
        (lambda: pd.Series(["a", None], dtype="str"), r"\[1\] is a missing value"),
        (lambda: pd.Series(["a", None], dtype="category"), r"\[1\] is a missing value"),
        (lambda: pd.Series([pd.NaT]), r"\[0\] is a missing value"),
        (lambda: pd.Series(pd.to_datetime(["2026-01-01"])), "datetime64"),
        (lambda: pd.Series([True, False]), "numpy.bool"),
        (lambda: pd.DataFrame({"a": [1]}), "whole pandas.DataFrame"),
        (lambda: pd.MultiIndex.from_tuples([(1, 2)]), "builtins.tuple"),
        (lambda: pa.array([1, None]), r"\[1\] is a missing value"),
        (lambda: pa.chunked_array([["a"], [None]]), r"\[1\] is a missing value"),
        (lambda: pa.array([True]), "numpy.bool"),
        (lambda: pa.array([b"\xff"]), "not UTF-8"),
        (lambda: np.array([1.0, np.inf]), r"\[1\] is a builtins.float \(inf\)"),
        (lambda: np.array([1.5]), r"\[0\] is a builtins.float \(1.5\)"),
        (lambda: np.array([1j]), "complex"),
        (lambda: np.array(["2026-01-01"], dtype="M8[ns]"), "datetime64"),
        (lambda: [np.datetime64("2026-01-01", "ns")], "numpy.datetime64"),
        (lambda: np.array([b"a", b"\xff"]), r"\[1\] is bytes that are not UTF-8"),
        (lambda: [b"\xc3", b"\xa9"], r"\[0\] is bytes that are not UTF-8"),
        (lambda: np.ma.array([1, 2], mask=[False, True]), r"\[1\] is a masked value"),
        (lambda: torch.tensor([True]), "numpy.bool"),
        (lambda: torch.tensor([0.5]), "float"),
        (lambda: ["a", None], r"\[1\] is a builtins.NoneType"),
        (lambda: ["a", "\ud800"], r"\[1\] is a text with half a character"),
        (lambda: ["a", ["b"]], r"\[1\] is a builtins.list"),
        (lambda: [1, "1"], "both 1 and '1'"),
        (lambda: pd.Series([1, "1"], dtype=object), "both 1 and '1'"),
    ],
    ids=range(28),
)
def test_what_is_no_uid_is_named_with_its_position(make, words):
    with pytest.raises(IdentityError, match=words):
        SampleSet.from_uids(make())


def test_uid_code_of_the_user_is_never_called():
    class Odd(str):
        __slots__ = ()

        def __eq__(self, other):
            raise AssertionError("called")

        def __len__(self):
            raise AssertionError("called")

        __hash__ = str.__hash__

    assert list(SampleSet.from_uids([Odd("a"), "b"])) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0", 0),
        ("-5", -5),
    ],
)
def test_canonical_decimal_texts_are_their_number(text, number):
    assert SampleSet.from_uids([text, "x"]) == SampleSet.from_uids([number, "x"])


@pytest.mark.parametrize(
    "text",
    ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "-0", "-", "01", "1a",
     "+1", "1_0", " 1", "1.0", "\u0661"],
)  # fmt: skip
def test_other_texts_stay_text(text):
    samples = SampleSet.from_uids([text, "x"])
    assert samples.overlay().base.decimal_text.size == 0
    assert set(samples) == {text, "x"}
