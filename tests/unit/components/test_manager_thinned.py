"""Loading beside thinning and the trash."""

import logging
import threading

import pytest
import torch
from support.training import make

from weightslab.components import loading
from weightslab.engine.care.trashing import thin
from weightslab.engine.errors import LockedError, StateMismatchError


@pytest.fixture
def thinned(run):
    """A run with steps 1 and 2, of which the second was thinned."""
    run.save(1)
    run.save(2, metrics={"loss": 0.25})
    thin(run.manager.root, run.manager.root.get_checkpoint(run.exp_hash, 2).name)
    return run


def test_latest_is_the_thinned_one_with_its_weights_and_metrics(thinned):
    model, _ = make(seed=7)
    found = thinned.manager.load_latest_checkpoint(model, load_optimizer=False)
    assert (found["step"], found["revision"], found["metrics"]) == (2, 2, {"loss": 0.25})
    assert found["path"].name == f"{thinned.exp_hash}_step_000002.r2.safetensors"
    for name, tensor in thinned.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_optimizer_that_is_asked_for_is_an_error_that_names_thinning(thinned):
    model, optimizer = make(seed=7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        StateMismatchError,
        match=r"no optimizer state: it was dropped by thinning; pass load_optimizer=False",
    ):
        thinned.manager.load_checkpoint(2, model=model, optimizer=optimizer)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_restored_checkpoint_has_its_optimizer_state_again(thinned):
    thinned.manager.root.restore(f"{thinned.exp_hash}_step_000002")
    model, optimizer = make(seed=7)
    found = thinned.manager.load_checkpoint(2, model=model, optimizer=optimizer)
    assert (found["revision"], found["report"].optimizers) == (1, ("optimizer",))


def test_checkpoint_saved_after_a_load_of_a_thinned_one_names_it_as_parent(thinned):
    thinned.manager.load_latest_checkpoint(thinned.model, load_optimizer=False)
    thinned.save(3)
    parent = thinned.manager.root.get_checkpoint(thinned.exp_hash, 3).parent
    assert (parent.step, parent.revision) == (2, 2)


def test_load_holds_its_checkpoint_until_it_has_everything(run, monkeypatch):
    run.save(1)
    root, seen = run.manager.root, []
    restore = loading.restore

    def slow(*arguments, **more):
        for way in (
            lambda: root.delete(run.exp_hash, step=1),
            lambda: root.trash.put(run.exp_hash, 1),
            lambda: thin(root, root.get_checkpoint(run.exp_hash, 1).name),
        ):
            with pytest.raises(LockedError, match="is being read"):
                way()
            seen.append(way)
        return restore(*arguments, **more)

    # in the middle of a load: a second process would have to be timed to be there
    monkeypatch.setattr(loading, "restore", slow)
    assert run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)["step"] == 1
    assert len(seen) == 3
    root.delete(run.exp_hash, step=1)


def test_load_follows_a_checkpoint_that_is_thinned_after_it_was_listed(run, monkeypatch, caplog):
    run.save(1)
    run.save(2)
    root = run.manager.root
    load, done = loading.load_entry, []

    def late(session, entry, *rest):
        if not done:
            done.append(thin(root, entry.name))
        return load(session, entry, *rest)

    monkeypatch.setattr(loading, "load_entry", late)  # between the listing and the load
    with caplog.at_level(logging.WARNING):
        found = run.manager.load_latest_checkpoint(run.model, load_optimizer=False)
    assert (found["step"], found["revision"], found["skipped"]) == (2, 2, [])
    assert caplog.records == []


@pytest.mark.slow
def test_loads_beside_a_thread_that_thins_find_a_checkpoint_each_time(run):
    for step in range(1, 13):
        run.save(step)
    root, failures, gate = run.manager.root, [], threading.Barrier(2)

    def thin_all():
        gate.wait()
        for step in range(1, 13):
            try:
                thin(root, root.get_checkpoint(run.exp_hash, step).name)
            except LockedError:  # noqa: PERF203 - one per step
                continue

    worker = threading.Thread(target=thin_all)
    worker.start()
    gate.wait()
    model, _ = make(seed=7)
    while worker.is_alive():
        found = run.manager.load_latest_checkpoint(model, load_optimizer=False)
        if found["step"] != 12 or found["skipped"]:
            failures.append(found)
    worker.join()
    assert failures == []
