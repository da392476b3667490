"""`seen` against what was really drawn: nothing is claimed that was not, and straight runs are known."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest
from support.lines import FRESH, Lines, link_to

from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.training.sampler import ResumableSampler

NUM_RUNS = 60
UIDS = range(12)


def wanted_seen(root, name):
    """The samples that the audit says a checkpoint has seen, each asked for by itself in one audit."""
    report = root.audit(UIDS)
    (found,) = (c for c in report if c.name == name)
    return set(found.seen)


class Training:
    """One run of weights through experiments; what they were trained on is `drawn`."""

    def __init__(self, draw):
        self.draw = draw
        self.root = Lines()
        self.samples = SampleSet.from_uids(UIDS)
        self.batch = draw.choice((1, 3, 4, 5))
        self.sampler = ResumableSampler(
            self.samples,
            batch_size=self.batch,
            seed=draw.randrange(3),
            shuffle=draw.random() < 0.8,
            drop_last=draw.random() < 0.4,
        )
        self.number, self.step, self.parent, self.drawn = 0, 0, None, set()
        self.exp_hash = self.root.experiment(0, self.samples)
        self.since = [self.exp_hash]
        self.saved = []

    def train(self, num_batches):
        while num_batches > 0:
            taken = 0
            for _ in islice(self.sampler, num_batches):
                self.drawn |= set(self.sampler.last_batch_uids)
                self.step += 1
                taken += 1
            num_batches -= max(taken, 1)

    def save(self):
        taken = {(m.name.exp_hash, m.name.step) for m, _, _ in self.saved}
        if (self.exp_hash, self.step) in taken:
            return
        state = self.sampler.state_dict()
        manifest = self.root.save(self.exp_hash, self.step, self.link(), sampler=state)
        self.saved.append((manifest, set(self.drawn), state))
        self.parent, self.since = manifest, [self.exp_hash]

    def link(self):
        """The parent link, as `Ancestry` makes it."""
        via = self.since[:-1]
        if self.parent is None:
            return replace(FRESH, via=tuple(via), exact=not via)
        return link_to(self.parent, via[1:] if via[:1] == [self.parent.name.exp_hash] else via)

    def change(self):
        """Discard or restore a sample, and tell it."""
        gone = sorted(self.samples.discarded)
        if gone and self.draw.random() < 0.5:
            self.samples.restore([self.draw.choice(gone)])
        elif len(self.samples) > 6:
            self.samples.discard([self.draw.choice(sorted(self.samples))])
        self.number += 1
        self.exp_hash = self.root.experiment(self.number, self.samples)
        self.since.append(self.exp_hash)

    def flicker(self):
        """Leave a sample out for a while, and tell nobody."""
        uid = self.draw.choice(sorted(self.samples))
        self.samples.discard([uid])
        self.train(self.draw.randint(0, 3))
        self.samples.restore([uid])

    def rewind(self, *, with_sampler):
        """Load an earlier checkpoint of this set of samples, its sampler with it or not."""
        own = [s for s in self.saved if s[0].name.exp_hash == self.exp_hash]
        if own:
            manifest, drawn, state = self.draw.choice(own)
            self.parent, self.drawn, self.step = manifest, set(drawn), manifest.name.step
            self.since = [self.exp_hash]
            if with_sampler:
                self.sampler.load_state_dict(state)

    def jump(self):
        self.sampler.set_epoch(self.draw.randrange(4))


def random_training(seed):
    draw = random.Random(seed)
    run = Training(draw)
    for _ in range(draw.randint(3, 14)):
        act = draw.choice(
            ["train"] * 3 + ["save"] * 3 + ["change", "flicker", "rewind", "lose", "jump"]
        )
        if act == "train":
            run.train(draw.randint(1, 6))
        elif act in ("rewind", "lose"):
            run.rewind(with_sampler=act == "rewind")
        else:
            getattr(run, act)()
    run.save()
    return run


@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_what_is_called_seen_was_drawn(seed):
    run = random_training(seed)

    report = run.root.audit(UIDS)

    found = {c.name: c for c in report}
    for manifest, drawn, _ in run.saved:
        assert set(found[manifest.name].seen) <= drawn
        assert set(found[manifest.name].possible) >= drawn


@pytest.mark.parametrize("seed", range(20))
def test_of_a_straight_run_all_that_was_drawn_is_seen(seed):
    draw = random.Random(seed)
    run = Training(draw)
    for _ in range(4):
        run.train(draw.randint(1, 7))
        run.save()

    for manifest, drawn, _ in run.saved:
        assert wanted_seen(run.root, manifest.name) == drawn


def straight(num_batches=2, **more):
    root, samples = Lines(), SampleSet.from_uids(UIDS)
    sampler = ResumableSampler(samples, batch_size=3, seed=1)
    list(islice(sampler, num_batches))
    exp_hash = root.experiment(0, samples)
    return root, exp_hash, sampler


def test_two_samplers_of_one_set_prove_nothing_as_one_may_be_for_validation():
    root, exp_hash, sampler = straight()
    state = sampler.state_dict()
    root.save(exp_hash, 2, sampler=[state])
    root.save(exp_hash, 3, sampler=[state, state])

    assert [c.verdict for c in root.audit(UIDS)] == ["seen", "possible"]


def test_more_samples_than_the_steps_can_have_used_prove_nothing():
    root, exp_hash, sampler = straight(num_batches=2)
    root.save(exp_hash, 1, sampler=sampler.state_dict())

    assert [c.verdict for c in root.audit(UIDS)] == ["possible"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"seed": -1},
        {"seed": "0"},
        {"epoch": True},
        {"after": None},
        {"after": 1.5},
        {"after": "\ud800"},
        {"after": 1 << 70},
        {"position": 5},
        {"samples": "12:0"},
        {"shuffle": 1},
        {"samples_seen": 1 << 80},
    ],
    ids=str,
)
def test_a_sampler_state_that_makes_no_sense_proves_nothing(wrong):
    root, exp_hash, sampler = straight()
    root.save(exp_hash, 2, sampler=sampler.state_dict() | wrong)

    assert [c.verdict for c in root.audit(UIDS)] == ["possible"]


def test_weights_that_went_through_another_experiment_have_no_proof_there():
    root, exp_hash, sampler = straight()
    other = root.experiment(1, range(20))
    first = root.save(exp_hash, 2, sampler=sampler.state_dict())
    list(islice(sampler, 1))
    root.save(exp_hash, 3, link_to(first, via=(other,)), sampler=sampler.state_dict())

    first, second = root.audit(UIDS)
    assert set(first.seen) == set(second.seen)
    assert len(first.seen) == 6
