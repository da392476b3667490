import copy
import pickle
import threading

import numpy as np
import pytest

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.base import has_bits
from weightslab.engine.identity.samples import SampleSet, relative_to


def letters():
    return SampleSet.from_uids(["a", "b", "c", 1, 2, "30"])


def test_discarding_equals_building_without():
    samples = letters()
    samples.discard(["b", 2, "30"])
    assert samples.digest == SampleSet.from_uids(["a", "c", 1]).digest
    assert list(samples) == [1, "a", "c"]
    assert list(samples.discarded) == [2, "30", "b"]


def test_restoring_leads_back():
    samples, before = letters(), letters().digest
    samples.discard(["b", 30])
    samples.restore({"30", "b"})
    assert samples.digest == before
    assert len(samples.discarded) == 0


def test_added_samples_can_be_discarded_and_restored():
    samples = letters()
    samples.add(["new", 7])
    samples.discard(["new"])
    assert (7 in samples, "new" in samples, list(samples.discarded)) == (True, False, ["new"])
    samples.restore(["new"])
    assert list(samples) == [1, 2, 7, "30", "a", "b", "c", "new"]


@pytest.mark.parametrize(
    ("method", "uids", "words"),
    [
        ("discard", ["a", "x", "y"], r"2 of 3 samples cannot be discarded: .* 'x', 'y'"),
        ("discard", ["gone"], "not in the set: 'gone'"),
        ("discard", [99], "not in the set: 99"),
        ("restore", ["a"], "were not discarded from this set: 'a'"),
        ("restore", ["x"], "were not discarded from this set: 'x'"),
        ("add", ["new", "a"], "1 of 2 samples cannot be added: they are in the set already: 'a'"),
        ("add", ["1"], "in the set already: '1'"),
        ("add", ["gone"], "they were discarded; restore them: 'gone'"),
    ],
)
def test_double_and_absent_changes_are_errors_that_change_nothing(method, uids, words):
    samples = SampleSet.from_uids(["a", "b", 1, "gone"])
    samples.discard(["gone"])
    before = samples.digest
    with pytest.raises(ValueError, match=words):
        getattr(samples, method)(uids)
    assert samples.digest == before
    assert (list(samples), list(samples.discarded)) == ([1, "a", "b"], ["gone"])


def test_an_error_about_an_added_sample_changes_nothing_either():
    samples = letters()
    samples.add(["new"])
    samples.discard(["new"])
    with pytest.raises(ValueError, match="'new'"):
        samples.discard(["a", "new"])
    with pytest.raises(ValueError, match="restore"):
        samples.add(["new"])
    assert "a" in samples


def test_a_uid_that_cannot_be_one_changes_nothing():
    samples = letters()
    with pytest.raises(IdentityError, match="NoneType"):
        samples.discard(["a", None])
    assert "a" in samples


def test_a_frozen_copy_stays_as_it_was_and_refuses_changes():
    samples = letters()
    kept = samples.frozen()
    samples.discard(["a"])
    samples.add(["z"])
    assert list(kept) == [1, 2, "30", "a", "b", "c"]
    assert kept.frozen() is kept
    with pytest.raises(TypeError, match="frozen"):
        kept.discard(["a"])


def test_only_a_frozen_set_has_a_hash():
    assert hash(letters().frozen()) == hash(letters().frozen())
    with pytest.raises(TypeError, match="no hash"):
        hash(letters())


def test_a_copy_goes_its_own_way():
    samples = letters()
    other = samples.frozen().copy()
    other.discard(["a"])
    assert ("a" in samples, "a" in other) == (True, False)


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copied_and_pickled_sets_are_whole(again):
    samples = letters()
    samples.discard(["a"])
    samples.add(["z"])
    other = again(samples)
    other.restore(["a"])
    assert list(other) == [1, 2, "30", "a", "b", "c", "z"]
    assert "a" not in samples


def test_difference_of_two_that_share_a_base_names_the_changes():
    old = SampleSet.from_uids([*range(100), "x", "y"])
    new = old.copy()
    new.discard([3, "x"])
    old.discard([50])
    new.add(["z"])
    added, removed = old.difference(new)
    assert (list(added), list(removed)) == ([50, "z"], [3, "x"])


def test_iteration_is_of_the_set_as_it_was_at_the_beginning():
    samples = letters()
    seen = []
    for uid in samples:
        seen.append(uid)
        if uid == 1:
            samples.discard(["c"])
    assert seen == [1, 2, "30", "a", "b", "c"]


def test_adding_more_than_a_tenth_makes_a_new_base_and_keeps_the_discarded():
    samples = SampleSet.from_uids([*range(1000), "a"])
    samples.discard([5, "a"])
    samples.add([*range(2000, 8000), *(f"n{i}" for i in range(500))])
    assert len(samples.overlay().base) == 7501
    samples.discard([2000])
    samples.restore([5, "a", 2000])
    whole = SampleSet.from_uids(
        [*range(1000), "a", *range(2000, 8000), *(f"n{i}" for i in range(500))]
    )
    assert samples.digest == whole.digest
    assert list(samples.discarded) == []


def test_after_many_changes_freezing_makes_what_is_the_new_base():
    samples = SampleSet.from_uids(range(100_000))
    samples.discard(range(5000))
    assert samples.frozen().overlay().num_changes() == 5000
    samples.discard(range(5000, 50_000))
    kept = samples.frozen()
    assert kept.overlay().num_changes() == 0
    assert kept.digest == SampleSet.from_uids(range(50_000, 100_000)).digest
    samples.restore([7])
    assert samples.digest == SampleSet.from_uids([7, *range(50_000, 100_000)]).digest


def test_discarded_given_at_the_beginning_can_be_restored():
    samples = SampleSet.from_uids([1, 2, 3, "x"], discarded=["3", "x", 99])
    assert list(samples.discarded) == [3, "x"]
    samples.restore(["x"])
    assert list(samples) == [1, 2, "x"]


def test_discarded_that_are_only_known_do_not_count():
    samples = SampleSet.from_uids([1, 2]).with_discarded([2, 3, "x"])
    assert samples.digest == SampleSet.from_uids([1, 2]).digest
    assert list(samples.discarded) == [3, "x"]


def test_a_list_given_again_is_told_as_changes_of_the_last_set():
    last = SampleSet.from_uids([*range(1000), "a", "b"]).frozen()
    again = relative_to(SampleSet.from_uids([*range(1, 1000), "a", "b", "c"]).frozen(), last)
    assert again.overlay().base is last.overlay().base
    assert again.digest == SampleSet.from_uids([*range(1, 1000), "a", "b", "c"]).digest


def test_a_list_whose_numbers_are_text_now_keeps_them_as_text():
    last = SampleSet.from_uids(range(1000)).frozen()
    again = relative_to(SampleSet.from_uids([str(i) for i in range(1001)]).frozen(), last)
    assert list(again)[:2] == ["0", "1"]


@pytest.mark.slow
def test_threads_that_change_one_set_lose_nothing():
    samples = SampleSet.from_uids(range(4000))

    def work(start):
        for at in range(start, 4000, 4):
            samples.discard([at])
            if at % 8 < 4:
                samples.restore([at])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples.digest == SampleSet.from_uids(i for i in range(4000) if i % 8 < 4).digest


@pytest.mark.slow
def test_membership_among_many_texts_is_exact():
    texts = [f"img_{i}.png" for i in range(30_000)]
    samples = SampleSet.from_uids(texts)
    samples.discard(texts[::2])
    assert all(text in samples for text in texts[1::2])
    assert not any(text in samples for text in texts[::2])
    assert not any(f"img_{i}.jpg" in samples for i in range(1000))
    assert 2**70 not in samples
    assert "\ud800" not in samples


def test_repetitions_among_many_texts_count_once():
    texts = [f"img_{i % 30_000:08d}.png" for i in range(70_000)]
    for given in (texts, np.array(texts), np.array(texts, dtype="S")):
        assert SampleSet.from_uids(given).digest == SampleSet.from_uids(texts[:30_000]).digest


def test_bits_of_an_empty_base_are_all_unset():
    found = has_bits(np.empty(0, np.uint8), np.array([-1]))
    assert found.tolist() == [False]
