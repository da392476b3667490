"""ResumableSampler by itself and in loaders without workers."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from weightslab.components import ResumableSampler, SampleSet
from weightslab.engine import jsonform
from weightslab.engine.errors import IdentityError, StateMismatchError, UnsupportedVersionError
from weightslab.engine.tensors import tree
from weightslab.engine.training.state import capture_stateful, plan_stateful_restore

EPOCH_0 = [3, 4, 9, 7, 1, 2, 0, 5, 8, 6]  # of range(10), seed 0: golden, docs/design/data_order.md
EPOCH_1 = [7, 0, 3, 4, 2, 6, 1, 8, 5, 9]


def make(samples=10, **options):
    return ResumableSampler(samples, **{"batch_size": 3} | options)


def joined(batches):
    return list(itertools.chain.from_iterable(batches))


def state_after(count, **options):
    """A sampler, and its state after some batches."""
    sampler = make(**options)
    batches = iter(sampler)
    for _ in range(count):
        next(batches)
    return sampler, sampler.state_dict()


# ---------------------------------------------------------------- batches
def test_batches_are_the_order_cut_into_pieces():
    assert list(make()) == [[3, 4, 9], [7, 1, 2], [0, 5, 8], [6]]


def test_the_next_loop_is_the_next_epoch():
    sampler = make()
    assert [joined(sampler), joined(sampler)] == [EPOCH_0, EPOCH_1]


def test_drop_last_leaves_out_what_makes_no_batch():
    sampler = make(drop_last=True)
    assert list(sampler) == [[3, 4, 9], [7, 1, 2], [0, 5, 8]]
    assert (sampler.epoch, sampler.position, sampler.samples_seen) == (1, 0, 9)


def test_without_shuffling_every_epoch_is_in_the_order_of_the_uids():
    sampler = make(4, shuffle=False)
    assert [list(sampler), list(sampler)] == [[[0, 1, 2], [3]]] * 2


@pytest.mark.parametrize(("options", "count"), [({}, 4), ({"drop_last": True}, 3)])
def test_the_length_is_that_of_a_whole_epoch(options, count):
    sampler, _ = state_after(2, **options)
    assert len(sampler) == count


def test_positions_in_the_data_set_are_plain_integers():
    (batch,) = make(3)
    assert {type(index) for index in batch} == {int}


@pytest.mark.parametrize(
    "dataset_uids",
    [
        ["d", "a", "c", "b"],
        ("d", "a", "c", "b"),
        np.array(["d", "a", "c", "b"]),
        pd.Series(["d", "a", "c", "b"]),
        pd.Series(["d", "a", "c", "b"], dtype="category"),
        iter(["d", "a", "c", "b"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_uids_are_found_in_the_data_set(dataset_uids):
    sampler = make(["a", "b", "c"], shuffle=False, dataset_uids=dataset_uids)
    assert list(sampler) == [[1, 3, 2]]
    assert sampler.last_batch_uids == ("a", "b", "c")


@pytest.mark.parametrize(
    "dataset_uids",
    [[30, 10, 20], torch.tensor([30, 10, 20]), ["30", "10", "20"], [30, "10", 20, "x"]],
)
def test_integers_are_found_however_they_are_given(dataset_uids):
    assert list(make([10, "20", 30], shuffle=False, dataset_uids=dataset_uids)) == [[1, 2, 0]]


# ---------------------------------------------------------------- the place
def test_the_place_is_that_of_the_loop_with_each_batch():
    sampler = make()
    seen = [(sampler.epoch, sampler.position, sampler.samples_seen) for _ in sampler]
    assert seen == [(0, 3, 3), (0, 6, 6), (0, 9, 9), (1, 0, 10)]


def test_a_new_loop_after_a_break_goes_on_with_the_epoch():
    sampler = make()
    for _ in sampler:
        break
    assert list(sampler) == [[7, 1, 2], [0, 5, 8], [6]]


def test_asking_for_the_place_or_a_loop_changes_nothing():
    sampler, before = state_after(4)
    iter(sampler)
    assert (sampler.epoch, sampler.position) == (1, 0)
    assert sampler.state_dict() == before


def test_last_batch_uids_are_those_of_the_last_batch():
    sampler = make()
    assert sampler.last_batch_uids == ()
    next(iter(sampler))
    assert sampler.last_batch_uids == (3, 4, 9)


def test_an_older_loop_does_not_go_on_beside_a_newer_one():
    sampler = make()
    older = iter(sampler)
    next(older)
    next(iter(sampler))
    with pytest.raises(RuntimeError, match="another loop over it was begun"):
        next(older)


def test_an_epoch_may_be_set():
    sampler, _ = state_after(2)
    sampler.set_epoch(0)
    assert sampler.position == 6
    sampler.set_epoch(1)
    assert joined(sampler) == EPOCH_1
    sampler.set_epoch(0)
    assert joined(sampler) == EPOCH_0


def test_a_loop_that_sets_every_epoch_runs_each_once():
    _, state = state_after(2)
    resumed, found = make(), []
    resumed.load_state_dict(state)
    for epoch in range(resumed.epoch, 2):
        resumed.set_epoch(epoch)
        found += joined(resumed)
    assert found == EPOCH_0[6:] + EPOCH_1


# ---------------------------------------------------------------- saving and loading
@pytest.mark.parametrize("count", range(9))
def test_a_loaded_sampler_goes_on_where_the_saved_one_was(count):
    saved, states, batches = make(), [make().state_dict()], []
    for _ in range(3):
        for batch in saved:
            batches.append(batch)
            states.append(saved.state_dict())

    sampler, found = make(), []
    sampler.load_state_dict(states[count])
    while len(found) < len(batches) - count:
        found += sampler
    assert found == batches[count:]


def test_the_batch_size_may_change():
    _, state = state_after(1)
    sampler = make(batch_size=5)
    sampler.load_state_dict(state)
    assert list(sampler) == [[7, 1, 2, 0, 5], [8, 6]]


def test_what_was_over_stays_over_with_smaller_batches():
    _, state = state_after(3, drop_last=True)
    sampler = make(batch_size=1, drop_last=True)
    sampler.load_state_dict(state)
    assert joined(sampler) == EPOCH_1


def test_a_state_survives_json_and_the_tensor_tree():
    uids = ["x", "y", "z", "17"]
    sampler, state = state_after(2, samples=uids, batch_size=1, dataset_uids=uids)
    through = jsonform.decode(json.loads(json.dumps(jsonform.encode(state))))
    tensors, skeleton = tree.split(capture_stateful(sampler))
    other = make(uids, batch_size=1, dataset_uids=uids)

    plan_stateful_restore(other, tree.join(skeleton, tensors)).apply()
    assert (through, other.state_dict(), tensors) == (state, state, {})


def test_a_state_does_not_grow_with_the_samples():
    assert len(json.dumps(state_after(1, samples=100_000)[1])) < 300


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": 1}, r"seed \(0 -> 1\)"),
        ({"shuffle": False}, r"shuffle \(True -> False\)"),
        ({"samples": 9}, r"number of samples \(10 -> 9\).*accept=\('samples',\)"),
        ({"samples": range(1, 11)}, r"samples \(10:\w+ -> 10:\w+\).*accept=\('samples',\)"),
        ({"num_replicas": 2, "rank": 0}, r"num_replicas \(1 -> 2\).*accept=\('num_replicas',\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(options, told):
    _, state = state_after(2)
    sampler = make(dataset_uids=range(11), **options)
    before = sampler.state_dict()

    with pytest.raises(StateMismatchError, match=told) as caught:
        sampler.load_state_dict(state)
    assert sampler.state_dict() == before
    assert len(caught.value.shape_changes) == 1


def test_other_samples_are_accepted_on_request():
    _, state = state_after(2)
    sampler = make([uid for uid in range(12) if uid not in (3, 5)], accept=("samples",))
    sampler.load_state_dict(state)
    rest = joined(sampler)
    assert [uid for uid in rest if uid < 10] == [0, 8, 6]
    assert set(rest) <= {0, 8, 6, 10, 11}


def test_ranks_that_take_as_much_together_may_be_others():
    _, state = state_after(1, batch_size=4)
    parts = []
    for rank in (0, 1):
        sampler = make(batch_size=2, num_replicas=2, rank=rank)
        sampler.load_state_dict(state)
        parts.append(next(iter(sampler)))
    assert parts == [[1, 0], [2, 5]]


@pytest.mark.parametrize(
    "change",
    [
        {"after": None},
        {"after": 2.0},
        {"position": -1},
        {"epoch": True},
        {"samples": 7},
        {"more": 1},
        {"version": 0},
    ],
    ids=str,
)
def test_a_state_out_of_order_is_refused(change):
    _, state = state_after(2)
    with pytest.raises(StateMismatchError):
        make().load_state_dict(state | change)


@pytest.mark.parametrize("state", [{}, None, 3, {"epoch": 1}], ids=str)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(StateMismatchError, match="not that of a ResumableSampler"):
        make().load_state_dict(state)


def test_a_state_of_a_newer_version_says_so():
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        make().load_state_dict(state_after(1)[1] | {"version": 2})


def test_a_loop_that_was_running_does_not_go_on_after_a_load():
    sampler, state = state_after(1)
    batches = iter(sampler)
    next(batches)
    sampler.load_state_dict(state)
    with pytest.raises(RuntimeError, match="begin a new loop"):
        next(batches)


# ---------------------------------------------------------------- samples that change
def test_a_discarded_sample_does_not_come_and_the_others_stay_in_order():
    sampler, found = make(), []
    for batch in sampler:
        found.append(batch)
        if len(found) == 1:
            sampler.discard([2, 8, 3])
    assert found == [[3, 4, 9], [7, 1, 0], [5, 6]]
    assert joined(sampler) == [uid for uid in EPOCH_1 if uid not in (2, 8, 3)]


def test_a_set_that_is_changed_elsewhere_counts_as_well():
    samples = SampleSet.from_uids(range(10))
    sampler = make(samples)
    batches = iter(sampler)
    next(batches)
    samples.discard([7, 1])
    assert next(batches) == [2, 0, 5]


def test_a_restored_sample_comes_if_its_turn_is_still_to_come():
    sampler, found = make(), []
    sampler.discard([9, 8])
    for batch in sampler:
        found.append(batch)
        if len(found) == 2:
            sampler.restore([9, 8])
    assert found == [[3, 4, 7], [1, 2, 0], [5, 8, 6]]


def test_an_added_sample_comes_in_its_turn():
    sampler = make(9, batch_size=1, dataset_uids=range(10))
    first = [uid for uid in EPOCH_0 if uid != 9]
    batches = iter(sampler)
    assert [next(batches) for _ in range(2)] == [[3], [4]]
    sampler.add([9])
    assert joined(batches) == [9, *first[2:]]


def test_a_sample_that_was_used_does_not_come_again_after_it_was_away():
    sampler = make()
    batches = iter(sampler)
    next(batches)
    sampler.discard([4])
    sampler.restore([4])
    assert joined(batches) == EPOCH_0[3:]


def test_discarding_the_rest_ends_the_epoch_and_restoring_resumes_it():
    sampler, _ = state_after(3)
    sampler.discard([6])
    assert (sampler.epoch, sampler.position) == (1, 0)
    sampler.restore([6])
    assert (sampler.epoch, sampler.position) == (0, 9)
    assert list(sampler) == [[6]]


def test_what_is_restored_with_the_last_batch_comes_in_the_next_epoch():
    sampler, found = make(), []
    sampler.discard([6])
    for batch in sampler:
        found += batch
        if len(found) == 9:
            sampler.restore([6])
    assert found == EPOCH_0[:9]
    assert joined(sampler) == EPOCH_1


def test_what_is_drawn_ahead_stays_one_order_until_it_is_drawn_anew():
    """Another thread discards while a loader draws: the batches drawn ahead are dropped as a whole."""
    sampler = make()
    ahead = iter(sampler)
    ahead.is_followed = True
    drawn = [next(ahead)]
    sampler.discard([7])
    drawn.append(next(ahead))

    assert drawn == [[3, 4, 9], [7, 1, 2]]
    assert ahead.is_outdated()
    assert sampler.position == 0


def test_a_frozen_set_cannot_be_discarded_from():
    with pytest.raises(TypeError, match="frozen"):
        make(SampleSet.from_uids([1]).frozen()).discard([1])


def test_an_added_sample_without_a_place_in_the_data_set_is_named():
    sampler = make(dataset_uids=range(10))
    sampler.add([77])
    with pytest.raises(ValueError, match="77 is not in dataset_uids"):
        list(sampler)


# ---------------------------------------------------------------- ranks
def test_ranks_share_each_global_batch():
    ranks = [list(make(batch_size=2, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert ranks == [[[3, 9], [1, 0], [8]], [[4, 7], [2, 5], [6]]]


def test_the_last_batch_is_filled_up_with_its_own_first_samples():
    samplers = [make(batch_size=1, num_replicas=4, rank=rank) for rank in range(4)]
    parts = [list(sampler) for sampler in samplers]
    assert [part[-1] for part in parts] == [[8], [6], [8], [6]]
    assert {len(part) for part in parts} == {3}
    assert {(sampler.epoch, sampler.samples_seen) for sampler in samplers} == {(1, 10)}


def test_drop_last_leaves_out_what_makes_no_batch_for_every_rank():
    parts = [
        joined(make(batch_size=2, num_replicas=3, rank=rank, drop_last=True)) for rank in range(3)
    ]
    assert sorted(joined(parts)) == sorted(EPOCH_0[:6])


def test_all_ranks_have_the_same_state():
    states = [state_after(2, batch_size=2, num_replicas=2, rank=rank)[1] for rank in (0, 1)]
    assert states[0] == states[1]


# ---------------------------------------------------------------- bad arguments
@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size is a float"),
        ({"batch_size": True}, TypeError, "batch_size is a bool"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 1 << 64}, ValueError, "seed is"),
        ({"samples": -3}, ValueError, "number of samples is -3"),
        ({"samples": None}, IdentityError, "no collection"),
        ({"samples": ["a"]}, ValueError, "'a' is no index of a data set"),
        ({"samples": [-1, 2]}, ValueError, "-1 is no index of a data set"),
        ({"samples": ["a", "b"], "dataset_uids": ["a"]}, ValueError, "'b' is not in dataset_uids"),
        ({"dataset_uids": ["a", "b", "a"]}, ValueError, "'a' twice"),
        ({"dataset_uids": [1, 2, 1]}, ValueError, "1 twice"),
        ({"dataset_uids": ["x", "1", "1"]}, ValueError, "'1' twice"),
        ({"num_replicas": 2}, ValueError, "both"),
        ({"num_replicas": 2, "rank": 2}, ValueError, "rank is 2"),
        ({"accept": ("seed",)}, ValueError, "accept has 'seed'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(options, error, told):
    with pytest.raises(error, match=told):
        make(**options)


@pytest.mark.parametrize("options", [{"samples": []}, {"samples": 2, "drop_last": True}])
def test_an_epoch_without_a_batch_is_an_error(options):
    with pytest.raises(ValueError, match="has no batch"):
        list(make(**options))


def test_an_epoch_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="epoch is a str"):
        make().set_epoch("1")


# ---------------------------------------------------------------- loaders without workers
class Numbers:
    """A data set whose items are their positions; some cannot be read."""

    def __init__(self, broken=()):
        self.broken = broken

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError(f"cannot read {index}")
        return index


def test_a_plain_loader_hands_over_the_batches():
    sampler = make()
    loader = DataLoader(Numbers(), batch_sampler=sampler)
    seen = [(sampler.epoch, sampler.position, batch.tolist()) for batch in loader]
    assert seen == [(0, 3, [3, 4, 9]), (0, 6, [7, 1, 2]), (0, 9, [0, 5, 8]), (1, 0, [6])]
    assert len(loader) == 4


def test_a_batch_that_could_not_be_loaded_comes_again_after_a_resume():
    sampler = make()
    batches = iter(DataLoader(Numbers(broken=[1]), batch_sampler=sampler))
    next(batches)
    with pytest.raises(OSError, match="cannot read 1"):
        next(batches)
    assert (sampler.position, sampler.last_batch_uids) == (3, (3, 4, 9))
    assert next(batches).tolist() == [0, 5, 8]
    assert (sampler.position, sampler.last_batch_uids) == (6, (0, 5, 8))
    assert next(iter(sampler)) == [6]


def test_the_sampler_in_the_wrong_place_of_a_loader_is_told():
    with pytest.raises(TypeError, match="pass it as batch_sampler"):
        next(iter(DataLoader(Numbers(), sampler=make(), batch_size=2)))


def test_batches_may_be_drawn_through_another_sampler_without_workers():
    sampler = make()

    class Every:
        def __iter__(self):
            yield from sampler

    for _ in DataLoader(Numbers(), batch_sampler=Every()):
        break
    assert sampler.position == 3


def test_going_on_in_an_epoch_takes_no_random_number():
    def draws(sampler, count):
        """One random number with each of the first batches."""
        loader = DataLoader(Numbers(), batch_sampler=sampler)
        return [torch.rand(()).item() for _, _ in zip(range(count), loader, strict=False)]

    torch.manual_seed(0)
    whole = draws(make(), 4)
    torch.manual_seed(0)
    sampler = make()
    parts = [*draws(sampler, 2), *draws(sampler, 2)]
    assert parts == whole


def test_a_new_epoch_takes_a_random_number_as_any_loader_does():
    torch.manual_seed(0)
    for _ in DataLoader(Numbers(), batch_sampler=BatchSampler(range(4), 2, drop_last=False)):
        pass
    expected = torch.rand(())
    torch.manual_seed(0)
    for _ in DataLoader(Numbers(), batch_sampler=make(4, batch_size=2)):
        pass
    assert torch.rand(()) == expected


def test_random_numbers_of_others_are_never_taken_back():
    sampler, _ = state_after(1)
    torch.manual_seed(0)
    batches = iter(DataLoader(Numbers(), batch_sampler=sampler))
    torch.rand(())
    before = torch.get_rng_state()
    next(batches)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copied_sampler_is_one_of_its_own():
    sampler, _ = state_after(1)
    other = copy.deepcopy(sampler)
    assert list(other) == [[7, 1, 2], [0, 5, 8], [6]]
    assert sampler.position == 3


def test_it_says_what_it_is():
    sampler, _ = state_after(2)
    assert repr(sampler) == "ResumableSampler(10 samples, epoch 0, position 6)"
