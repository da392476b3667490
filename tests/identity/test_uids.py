"""Samples: which UIDs make one set, and which make two."""

import numpy as np
import pytest
import torch
from support.identity import Case, case_name

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.samples import SampleSet

DIFFER = [
    ("one removed", range(100), range(99)), ("one added", range(100), range(101)),
    ("one replaced", ["a", "b", "c"], ["a", "b", "d"]), ("empty or zero", [], [0]),
    ("empty or the empty text", [], [""]), ("pipe", ["a|b"], ["a", "b"]), ("comma", ["a,b"], ["a", "b"]),
    ("line end", ["a\nb"], ["a", "b"]), ("boundary of texts", ["ab", "c"], ["a", "bc"]),
    ("other separators", ["1:d0:t|2"], ["1", "2"]), ("nul", ["a\0b"], ["a", "b"]),
    ("equal sums", [1, 4], [2, 3]), ("equal xor", [1, 2, 4, 7], []), ("sign", [1, 2], [-1, 2]),
    ("large", [2**64], [0]), ("swapped bits", [1, 2], [3, 0]), ("case", ["A.png"], ["a.png"]),
    ("leading zeros", ["007"], ["7"]), ("trailing space", ["a "], ["a"]),
    ("two spellings of a letter", ["\xe9", "e\u0301"], ["\xe9"]),
    ("beyond ten thousand", range(20000), [*range(10000), *range(10001, 20001)]),
]  # fmt: skip
EQUAL = [
    ("order", [3, 1, 2], [1, 2, 3]), ("repetition", [1, 2, 2, 3], [1, 2, 3]),
    ("numpy scalars", [1, 2], [np.int64(1), np.int64(2)]), ("array", [1, 2, 3], np.array([1, 2, 3])),
    ("small ints", [1, 2, 3], np.array([1, 2, 3], dtype=np.int32)), ("tensor", [1, 2, 3], torch.tensor([1, 2, 3])),
    ("decimal texts", [1, 2, 10], ["1", "2", "10"]), ("set", {"a", "b", "c"}, ["c", "b", "a"]),
    ("keys of a dict", ["a", "b"], {"b": 1, "a": 2}.keys()), ("range", [0, 1, 2], range(3)),
    ("array of texts", ["a", "b"], np.array(["a", "b"])), ("array of bytes", ["a", "b"], np.array([b"a", b"b"])),
    ("whole floats", [1, 2], [1.0, 2.0]),
]  # fmt: skip


def _data(name, same, left, right):
    return Case(name, same, lambda: left, lambda: right, kind="data")


def _pandas():
    import pandas as pd

    return pd.Index(["b", "a"])


def _generator():
    return (i for i in (3, 2, 1))


CASES = [
    *(_data(name, False, left, right) for name, left, right in DIFFER),
    *(_data(name, True, left, right) for name, left, right in EQUAL),
    Case("generator", True, lambda: [1, 2, 3], _generator, kind="data"),
    Case("pandas index", True, lambda: ["a", "b"], _pandas, kind="data"),
]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_sample_sets(case):
    case.check()


@pytest.mark.parametrize(
    ("uids", "discarded", "active"),
    [([1, 2, 3], [3], [1, 2]), ([1, 2, 3], [], [3, 1, 2]), ([1, 2, 3], [2], [1, 3])],
)
def test_discarded_samples_are_not_in_the_set(uids, discarded, active):
    found = SampleSet.from_uids(uids, discarded=discarded)
    assert found.digest == SampleSet.from_uids(active).digest
    assert found.digest != SampleSet.from_uids([*active, 9]).digest


@pytest.mark.parametrize("uids", [[None], [1, "1"], [float("nan")], [[1]], [True]])
def test_what_is_no_uid_or_two_samples_in_one_is_refused(uids):
    with pytest.raises(IdentityError):
        SampleSet.from_uids(uids)
