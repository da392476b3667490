"""Rows shared among threads: every row once, in order, and the same result as alone."""

import numpy as np
import pytest

from weightslab.engine.identity import parallel
from weightslab.engine.identity.mix import mix_texts, sum_ints
from weightslab.engine.identity.parallel import in_parts
from weightslab.engine.identity.repetitions import all_differ
from weightslab.engine.identity.texts import Texts

MANY = (1 << 18) + 12_345


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(parallel, "_num_threads", lambda: request.param)
    return request.param


def test_parts_cover_every_row_once_and_in_order(threads):
    parts = in_parts(MANY, lambda low, high, step: (low, high))
    assert len(parts) == threads
    assert [low for low, _ in parts] == [0, *(high for _, high in parts[:-1])]
    assert parts[-1][1] == MANY


def test_few_rows_stay_in_the_thread_of_the_caller(threads):
    assert in_parts(1000, lambda low, high, step: (low, high)) == [(0, 1000)]


def test_error_of_the_last_part_is_raised(threads):
    def work(low, high, step):
        if high == MANY:
            raise ZeroDivisionError("in the last part")

    with pytest.raises(ZeroDivisionError, match="in the last part"):
        in_parts(MANY, work)


def test_lanes_and_sums_are_those_of_one_thread(threads, monkeypatch):
    texts = Texts.of([b"sample %d" % n for n in range(MANY)])
    numbers = np.arange(MANY) * 7919
    found = mix_texts(texts), sum_ints(numbers)
    monkeypatch.setattr(parallel, "_num_threads", lambda: 1)
    (lanes, sums), ints = mix_texts(texts), sum_ints(numbers)
    assert (found[0][0] == lanes).all()
    assert (found[0][1], found[1]) == (sums, ints)


def test_one_repetition_among_many_is_found(threads):
    words = np.random.default_rng(0).integers(0, 1 << 63, MANY).astype(np.uint64)
    assert all_differ(words)
    words[-1] = words[5]
    assert not all_differ(words)
