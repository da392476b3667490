"""`CheckpointManagerV2(retention=...)`: applied after each save, and no save fails for it."""

import logging

import pytest
from support.training import CONFIG, make, train

from weightslab.components import (
    BestN,
    ByteBudget,
    CheckpointManagerV2,
    CustomSteps,
    LatestN,
    Retention,
)


class Refusing:
    """A policy of a user that fails."""

    scope = "experiment"

    def choose(self, checkpoints):
        raise RuntimeError("no")


@pytest.fixture
def train_with(tmp_path):
    """Train with a retention, saving each step; returns the manager, closed."""

    def go(retention, losses=(0.5, 0.1, 0.4, 0.3, 0.2), **more):
        model, optimizer = make()
        with CheckpointManagerV2(tmp_path / "root", retention=retention, **more) as manager:
            manager.update_experiment_hash(model, CONFIG, range(100))
            for step, loss in enumerate(losses, start=1):
                train(model, optimizer)
                manager.save_model_checkpoint(
                    model, step=step, optimizer=optimizer, metrics={"loss": loss}
                )
        return manager

    return go


def steps_of(manager):
    return [entry.name.step for entry in manager.root.checkpoints(manager.current_hash)]


@pytest.mark.parametrize("async_save", [False, True])
def test_retention_is_applied_after_each_save(train_with, async_save):
    manager = train_with(LatestN(2) | BestN("loss"), async_save=async_save)
    assert steps_of(manager) == [2, 4, 5]
    assert [e.name.step for e in manager.root.trash.list()] == [1, 3]
    assert manager.root.verify() == []


def test_older_checkpoints_lose_their_optimizer_state_and_still_load(train_with):
    manager = train_with(Retention(training=LatestN(2)))
    entries = manager.root.checkpoints()
    assert [(e.name.step, "training" in e.parts) for e in entries] == [
        (1, False),
        (2, False),
        (3, False),
        (4, True),
        (5, True),
    ]
    again = CheckpointManagerV2(manager.root.path)
    model, optimizer = make()
    assert again.load_checkpoint(2, model=model, load_optimizer=False)["step"] == 2
    assert again.load_latest_checkpoint(model, optimizer=optimizer)["step"] == 5


@pytest.mark.slow
def test_only_the_experiment_that_was_saved_to_is_looked_at_unless_the_scope_is_the_root(
    tmp_path,
):
    for lr, retention, left in (
        (0.1, None, 3),
        (0.2, LatestN(1), 4),
        (0.3, LatestN(1, scope="root"), 3),
    ):
        model, optimizer = make()
        with CheckpointManagerV2(tmp_path / "root", retention=retention) as manager:
            manager.update_experiment_hash(model, CONFIG | {"lr": lr}, range(100))
            for step in (1, 2, 3):
                train(model, optimizer)
                manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
        assert len(manager.root.checkpoints()) == left


def test_a_retention_that_fails_fails_no_save_and_is_told(train_with, caplog):
    with caplog.at_level(logging.WARNING):
        manager = train_with(LatestN(2) | Refusing())
    assert steps_of(manager) == [1, 2, 3, 4, 5]
    assert caplog.text.count("the retention failed after a save: RuntimeError: no") == 1
    assert manager.root.gc(LatestN(9)).problems == (
        "the retention failed after a save: RuntimeError: no",
    )
    events = [r["event"] for r in manager.root.journal.read()]
    assert events.count("retention_problem") == 1


def test_a_budget_that_cannot_be_met_is_a_warning_with_the_figures(train_with, caplog):
    with caplog.at_level(logging.WARNING):
        manager = train_with(ByteBudget(10))
    assert steps_of(manager) == [5]
    assert "cannot be met: it is 10 bytes, and" in caplog.text


def test_gc_without_a_policy_takes_that_of_the_manager(train_with):
    manager = train_with(CustomSteps([1]))
    manager.root.retention = Retention.of(LatestN(1))
    assert [n.step for n in manager.root.gc(dry_run=True).dropped] == [1]


@pytest.mark.parametrize("wrong", [3, "latest", LatestN])
def test_what_is_no_retention_is_refused_at_once(tmp_path, wrong):
    with pytest.raises(TypeError, match="a retention policy such as"):
        CheckpointManagerV2(tmp_path / "root", retention=wrong)


def test_a_branch_is_kept_by_its_child_in_the_next_experiment(tmp_path):
    model, optimizer = make()
    with CheckpointManagerV2(tmp_path / "root", retention=LatestN(1)) as manager:
        first = manager.update_experiment_hash(model, CONFIG, range(100)).exp_hash
        for step in (1, 2, 3):
            train(model, optimizer)
            manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
        manager.load_checkpoint(3, model=model, optimizer=optimizer)
        manager.update_experiment_hash(config=CONFIG | {"lr": 9.0})
        manager.save_model_checkpoint(model, step=4, optimizer=optimizer)
        manager.update_experiment_hash(config=CONFIG)
        manager.save_model_checkpoint(model, step=5, optimizer=optimizer)
        entries = manager.root.checkpoints(first)
    assert [e.name.step for e in entries] == [3, 5]
