"""A process that dies at each single writing call while it opens an experiment of changed samples."""

import pytest
from support.mortal import MortalStore
from support.roots import ORIGIN, fast_folder, small_root, strangers, tidy_all

from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.testing.faults import SimulatedCrash

UIDS = [*range(5000), *(f"n{i}.png" for i in range(200))]


def open_samples(root, samples):
    kept = samples.frozen()
    components = Components(config=describe_config({"n": 0}).digest, data=kept.digest)
    record = ExperimentRecord(components=components, created_at=ORIGIN)
    open_experiment(root.store, record, ExperimentContent(config={"n": 0}, samples=kept))
    return record.exp_hash


def first(path, *, stored):
    """Return a set that was changed; with `stored`, what it was before is in the root."""
    samples = SampleSet.from_uids(UIDS)
    root = small_root(path)
    if stored:
        open_samples(root, samples)
    samples.discard([7, "n3.png"])
    return samples


def check(root, exp_hash, samples):
    assert root.verify() == []
    assert root.samples(exp_hash).digest == samples.digest
    tidy_all(root)
    base = layout.samples_base_key(exp_hash)
    assert set(strangers(root)) <= {base, base + ".json"}
    assert root.verify() == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stored", [False, True], ids=["base written", "base linked"])
@pytest.mark.parametrize("comes_next", ["delta", "whole set"])
def test_death_at_any_call_leaves_nothing_that_stands_in_the_way(stored, after, comes_next):
    with fast_folder() as folder:
        samples = first(folder / "count", stored=stored)
        root = small_root(folder / "count", MortalStore)
        open_samples(root, samples)
        root.store.bury()
        for call in range(1, root.store.calls + 1):
            path = folder / f"at-{call}"
            samples = first(path, stored=stored)
            dying = small_root(
                path, lambda local, at=call: MortalStore(local, fail_at=at, after=after)
            )
            with pytest.raises(SimulatedCrash):
                open_samples(dying, samples)
            dying.store.bury()
            root = small_root(path)
            assert root.verify() == []
            if comes_next == "whole set":  # another process, which knows no base
                samples = SampleSet.from_uids(set(UIDS) - {7, "n3.png"})
            check(root, open_samples(root, samples), samples)
