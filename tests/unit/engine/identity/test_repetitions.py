"""Whether hashes all differ, against sorting; and texts found by halves, as in an index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightslab.engine.identity.base import Base
from weightslab.engine.identity.overlay import state_of
from weightslab.engine.identity.repetitions import all_differ, slot_of, slots_of
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.identity.textindex import index_texts
from weightslab.engine.identity.texts import Texts
from weightslab.engine.identity.uids import Columns, read_uids


def words(count, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64)


@pytest.mark.parametrize("count", [0, 1, 2, 256, 257, 5000, 100_000])
def test_random_words_all_differ(count):
    assert all_differ(words(count))


@given(st.integers(257, 20_000), st.data())
def test_one_repetition_anywhere_is_found(count, data):
    hashes = words(count)
    one, other = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    hashes[one] = hashes[other]
    assert not all_differ(hashes)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=257, max_size=600))
@pytest.mark.slow
def test_true_is_never_wrong(values):
    hashes = np.array(values, np.uint64)
    assert not all_differ(hashes) or len(set(values)) == len(values)


def test_words_of_one_value_end_at_once():
    assert not all_differ(np.zeros(10_000, np.uint64))


def test_two_words_with_one_place_and_one_mark_are_taken_for_a_repetition_and_kept_apart():
    hashes = words(1000)
    # a mark is the lower half of a word; of words that differ above, some have one place
    near = hashes[8] ^ (np.arange(1, 100_000, dtype=np.uint64) << np.uint64(32))
    hashes[7] = near[slots_of(near, 0, 1024) == slot_of(int(hashes[8]), 0, 1024)][0]
    assert hashes[7] != hashes[8]
    assert not all_differ(hashes)
    texts = Texts.of([b"t%d" % n for n in range(1000)])
    assert index_texts(texts, hashes)[1].tolist() == []


def test_repetitions_among_many_texts_count_once():
    names = [f"n{n}.png" for n in range(3000)]
    assert SampleSet.from_uids(names + names[::7]).digest == SampleSet.from_uids(names).digest
    assert len(SampleSet.from_uids([*names, "n17.png"])) == 3000


@given(st.sets(st.text(max_size=5).map(str.encode), max_size=60), st.lists(st.text(max_size=5)))
@pytest.mark.slow
def test_texts_in_order_are_found_by_halves_where_the_index_finds_them(held, asked):
    none, texts = np.empty(0, np.int64), Texts.of(sorted(held))
    columns = Columns.of(none, none, texts, ascends=True)
    by_halves = Base.of(columns, known=state_of(columns, {}))
    columns = Columns.of(none, none, texts)
    by_index = Base.of(columns, known=state_of(columns, {}))
    wanted = read_uids([f"x{text}" for text in asked] + [t.decode() for t in held if t[:1] > b"9"])
    assert by_halves.find(wanted).tolist() == by_index.find(wanted).tolist()
    assert [by_halves.find_one(f"x{text}") for text in asked] == [
        by_index.find_one(f"x{text}") for text in asked
    ]
    assert not by_halves._index


def test_reading_a_delta_back_needs_no_index():
    stored = SampleSet.from_columns(texts=[b"n%05d" % n for n in range(5000)]).copy()
    stored.discard([f"n{n:05d}" for n in range(100)])
    assert "n00099" not in stored
    assert "n00100" in stored
    assert not stored.overlay().base._index


def test_many_questions_at_once_build_the_index():
    stored = SampleSet.from_columns(texts=[b"n%05d" % n for n in range(9000)]).copy()
    stored.discard([f"n{n:05d}" for n in range(5000)])
    assert stored.overlay().base._index
    assert stored.digest == SampleSet.from_uids([f"n{n:05d}" for n in range(5000, 9000)]).digest
