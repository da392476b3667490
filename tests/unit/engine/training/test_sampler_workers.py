"""ResumableSampler in loaders with workers: the same as without, at every moment."""

from __future__ import annotations

import importlib.util
import time

import pytest
import torch
from support.data_order import AheadLoader
from torch.utils.data import DataLoader

from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.training.sampler import ResumableSampler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
LOADERS = [
    pytest.param({"num_workers": 1}, id="1"),
    pytest.param({"num_workers": 2, "prefetch_factor": 3}, id="2"),
    pytest.param({"num_workers": 2, "persistent_workers": True}, id="2-persistent"),
]


class Items:
    """A data set whose items are their positions; the workers race, and some items cannot be read."""

    def __init__(self, broken=()):
        self.broken = broken

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError(f"cannot read {index}")
        return index


def make(**options):
    return ResumableSampler(40, **{"batch_size": 4, "seed": 1} | options)


def load(sampler, dataset=None, **options):
    if options:
        options["multiprocessing_context"] = "fork"
    return DataLoader(dataset or Items(), batch_sampler=sampler, **options)


def events(sampler, loader, num_epochs, changes):
    """What a loop sees with each batch; `changes`: number of batches -> what is done after it."""
    count = sampler.samples_seen // 4
    for _ in range(sampler.epoch, num_epochs):
        for batch in loader:
            count += 1
            change, uids = changes.get(count, (None, ()))
            if change:
                getattr(sampler, change)(uids)
            noise = torch.rand(()).item()
            yield batch.tolist(), sampler.epoch, sampler.position, sampler.last_batch_uids, noise


# seed 1: 20 22 23 30 19 9 15 21 18 35 34 2 26 17 3 24 33 27 36 6 7 11 0 1 39 29 28 32 4 5 37 25 12 ...
CHANGES = {
    2: ("discard", [20, 26, 39]),
    3: ("discard", [24]),
    5: ("restore", [20, 39, 26]),
    6: ("discard", [29, 28, 32, 37]),
}


@pytest.mark.parametrize("options", LOADERS)
def test_a_loop_sees_the_same_with_workers_as_without(options):
    torch.manual_seed(0)
    sampler = make()
    expected = list(events(sampler, load(sampler), 2, CHANGES))
    torch.manual_seed(0)
    sampler = make()
    found = list(events(sampler, load(sampler, **options), 2, CHANGES))

    without_noise = [event[:-1] for event in expected]
    assert [event[:-1] for event in found] == without_noise
    assert [event[0] for event in expected[:9]] == [
        [20, 22, 23, 30],
        [19, 9, 15, 21],
        [18, 35, 34, 2],  # 26 and 39 are away
        [17, 3, 33, 27],  # 24, too
        [36, 6, 7, 11],
        [0, 1, 39, 29],  # 39 is back; the turns of 20 and 26 have passed
        [4, 5, 25, 12],
        [13, 8, 10, 14],
        [16, 31, 38],
    ]


@pytest.mark.parametrize("options", LOADERS)
@pytest.mark.parametrize("stop", [1, 4, 9, 10], ids="after {}".format)
def test_a_resumed_loop_sees_what_the_uninterrupted_one_saw(options, stop):
    """First, middle, last but one, and the boundary of the epochs; random numbers included."""
    torch.manual_seed(0)
    sampler = make()
    loop, saved, whole = events(sampler, load(sampler, **options), 2, {}), None, []
    for number, event in enumerate(loop, start=1):
        whole.append(event)
        if number == stop:
            saved = sampler.state_dict(), torch.get_rng_state()

    resumed = make()
    loader = load(resumed, **options)
    resumed.load_state_dict(saved[0])
    torch.set_rng_state(saved[1])
    rest = list(events(resumed, loader, 2, {}))

    assert len(whole) == 20
    assert rest == whole[stop:]


def test_a_discard_before_and_after_the_save_is_resumed():
    sampler = make()
    whole = [e[0] for e in events(sampler, load(sampler, num_workers=2), 1, CHANGES)]
    sampler = make()
    loop = events(sampler, load(sampler, num_workers=1), 1, CHANGES)
    first = [next(loop)[0] for _ in range(4)]
    loop.close()

    samples = SampleSet.from_uids(range(40), discarded=[20, 26, 39, 24])
    resumed = ResumableSampler(samples, batch_size=4, seed=1)
    resumed.load_state_dict(sampler.state_dict())
    rest = [e[0] for e in events(resumed, load(resumed, num_workers=2), 1, CHANGES)]
    assert first + rest == whole


@pytest.mark.parametrize("options", LOADERS[1:])
def test_a_loop_after_a_break_goes_on_behind_the_last_batch(options):
    sampler, found = make(), []
    loader = load(sampler, **options)
    while sampler.epoch == 0:
        for batch in loader:
            found += batch.tolist()
            break
    assert found == [index for batch in make() for index in batch]


def test_a_batch_that_could_not_be_loaded_comes_again_after_a_resume():
    broken = list(make())[2][1]
    sampler = make()
    batches = iter(load(sampler, Items(broken=[broken]), num_workers=2))
    for _ in range(2):
        next(batches)
    with pytest.raises(OSError, match=f"cannot read {broken}"):
        next(batches)
    assert sampler.position == 8
    resumed = make()
    resumed.load_state_dict(sampler.state_dict())
    assert broken in next(iter(resumed))

    after = list(make())[3]
    assert next(batches).tolist() == after  # the loop may go on without it
    assert (sampler.position, sampler.last_batch_uids) == (12, tuple(after))


def test_a_loop_over_a_loader_that_nobody_holds_survives_a_discard():
    sampler, found = make(), []
    for batch in load(sampler, num_workers=1):
        found += batch.tolist()
        if len(found) == 8:
            sampler.discard([18, 35])
    assert len(found) == 38
    assert not {18, 35} & set(found)


@pytest.mark.parametrize("options", LOADERS)
def test_discarding_the_rest_ends_the_loop_and_not_the_next_epoch(options):
    sampler, found = make(), []
    loader = load(sampler, **options)
    for batch in loader:
        found += batch.tolist()
        if len(found) == 8:
            sampler.discard([index for index in range(40) if index not in found])
    assert len(found) == 8
    assert (sampler.epoch, sampler.position) == (1, 0)
    assert sorted(index for batch in loader for index in batch.tolist()) == sorted(found)


def test_a_loop_does_not_go_on_after_the_epoch_was_set():
    sampler = make()
    batches = iter(load(sampler, num_workers=1))
    next(batches)
    sampler.set_epoch(3)
    with pytest.raises(RuntimeError, match="begin a new loop"):
        next(batches)


def test_batches_in_any_order_are_refused():
    with pytest.raises(ValueError, match="in_order=False"):
        iter(load(make(), num_workers=1, in_order=False))


def test_a_loader_with_workers_behind_another_sampler_is_refused():
    class Every:
        def __init__(self, sampler):
            self.sampler = sampler

        def __iter__(self):
            yield from self.sampler

    with pytest.raises(TypeError, match="draws batches through a Every"):
        iter(load(Every(make()), num_workers=1))


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_loader_of_the_property_tests_does_what_a_real_one_does(depth):
    """So that these may do without processes."""
    sampler = make()
    expected = [e[0] for e in events(sampler, load(sampler, num_workers=1), 1, CHANGES)]
    sampler, found = make(), []
    for batch in AheadLoader(sampler, depth):
        found.append(batch)
        change, uids = CHANGES.get(len(found), (None, ()))
        if change:
            getattr(sampler, change)(uids)
    assert found == expected


def test_the_first_batch_of_a_million_samples_comes_soon_and_the_others_at_once():
    """0.1 s and 15 us on a quiet core; the limits are those of the issue, with room for a busy one."""
    sampler = ResumableSampler(1_000_000, batch_size=64)

    def seconds(draw):
        begin = time.thread_time()
        draw()
        return time.thread_time() - begin

    starts = []
    for epoch in range(1, 4):
        sampler.set_epoch(epoch)
        batches = iter(sampler)
        starts.append(seconds(lambda: next(batches)))  # noqa: B023 - called at once
    assert min(starts) < 0.3
    assert seconds(lambda: [next(batches) for _ in range(1000)]) < 0.2


@pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="needs torchdata")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_stateful_loader_of_torchdata_is_used_as_it_is(num_workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    def made():
        return StatefulDataLoader(Items(), batch_sampler=make(), num_workers=num_workers)

    expected, loader = list(make()), made()
    batches = iter(loader)
    first = [next(batches).tolist() for _ in range(3)]
    resumed = made()
    resumed.load_state_dict(loader.state_dict())
    assert first + [batch.tolist() for batch in resumed] == expected
