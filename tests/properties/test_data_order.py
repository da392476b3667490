"""Any history of a sampler gives what a plain model, written from the design page, says comes next."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_order import AheadLoader, PlainSampler

from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.training.sampler import ResumableSampler

pytestmark = pytest.mark.slow
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Nd"]), max_size=12)
UIDS = st.lists(st.integers(-(2**63), 2**63 - 1) | TEXTS, unique=True, min_size=1, max_size=14)
OPERATIONS = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.just(("next", None)),
        st.tuples(st.just("resume"), st.integers(1, 5)),
        st.tuples(st.just("discard"), st.integers(0, 13)),
        st.tuples(st.just("bring"), st.integers(0, 13)),
        st.just(("break", None)),
    ),
    max_size=40,
)


class Both:
    """The sampler behind a loader that draws ahead, and the model; every answer is compared."""

    def __init__(self, uids, depth, options):
        self.uids, self.depth, self.options = uids, depth, options
        begun = uids[: len(uids) // 2 + 1]  # the others may be added
        self.samples = SampleSet.from_uids(begun)
        self.model = PlainSampler(begun, **options)
        self.sampler = self.made()
        self.loop = None

    def made(self):
        return ResumableSampler(self.samples, dataset_uids=self.uids, **self.options)

    def next(self, _):
        if self.loop is None:
            if not self.model.begin():
                return  # an epoch without a batch is an error; see the unit tests
            self.loop = iter(AheadLoader(self.sampler, self.depth))
        expected = self.model.next()
        indices = next(self.loop, None)
        found = None if indices is None else [self.uids[index] for index in indices]
        assert found == expected
        if found is None:
            self.loop = None
        else:
            assert list(self.sampler.last_batch_uids) == expected

    def resume(self, batch_size):
        """Another process begins with the saved state and another batch size."""
        state = self.sampler.state_dict()
        self.options = self.options | {"batch_size": batch_size}
        self.samples = SampleSet.from_uids(list(self.samples))  # knows of no discarded ones
        self.sampler = self.made()
        self.sampler.load_state_dict(state)
        self.model.batch_size = batch_size
        self.loop = None

    def discard(self, at):
        uid = self.uids[at % len(self.uids)]
        if uid in self.model.active:
            self.sampler.discard([uid])
            self.model.active.remove(uid)

    def bring(self, at):
        uid = self.uids[at % len(self.uids)]
        if uid in self.model.active:
            return
        if uid in self.samples.discarded:
            self.sampler.restore([uid])
        else:
            self.sampler.add([uid])
        self.model.active.add(uid)

    def restart(self, _):
        self.loop = None

    def compare_places(self):
        assert (self.sampler.epoch, self.sampler.position) == self.model.at()
        assert self.sampler.samples_seen == self.model.seen


@settings(max_examples=300, deadline=None)
@given(
    uids=UIDS,
    depth=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**64 - 1),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    operations=OPERATIONS,
)
def test_any_history_gives_what_the_model_says(
    uids, depth, batch_size, seed, shuffle, drop_last, operations
):
    options = {"seed": seed, "shuffle": shuffle, "drop_last": drop_last, "batch_size": batch_size}
    both = Both(uids, depth, options)
    actions = {
        "next": both.next,
        "resume": both.resume,
        "discard": both.discard,
        "bring": both.bring,
        "break": both.restart,
    }
    for name, argument in operations:
        actions[name](argument)
        both.compare_places()


@settings(max_examples=100, deadline=None)
@given(
    uids=UIDS,
    gone=st.sets(st.integers(0, 13)),
    seed=st.integers(0, 2**64 - 1),
    batch_size=st.integers(1, 5),
    num_replicas=st.integers(1, 4),
)
def test_ranks_together_get_each_active_sample_once_an_epoch(
    uids, gone, seed, batch_size, num_replicas
):
    active = [uid for at, uid in enumerate(uids) if at not in gone] or uids
    ranks = [
        ResumableSampler(
            active,
            batch_size=batch_size,
            seed=seed,
            dataset_uids=uids,
            num_replicas=num_replicas,
            rank=rank,
        )
        for rank in range(num_replicas)
    ]
    for _ in range(2):
        parts = [list(sampler) for sampler in ranks]
        got = [index for part in parts for batch in part for index in batch]
        assert {uids[index] for index in got} == set(active)
        assert len(got) - len(active) == -len(active) % num_replicas  # filled up
        assert {tuple(map(len, part)) for part in parts} == {tuple(map(len, parts[0]))}
