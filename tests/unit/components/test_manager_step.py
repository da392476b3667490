"""`manager.step`: saves when the policy says so, and what is left at the end."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch
from support.training import CONFIG, make, state_of, train

from weightslab.backend import ledgers
from weightslab.components import (
    AtExit,
    CheckpointManagerV2,
    FixedInterval,
    InitialSave,
    OnException,
    OnPreemption,
    Preempted,
    SpecificSteps,
    TimeInterval,
)
from weightslab.engine.errors import (
    AsyncSaveError,
    ExperimentNotFoundError,
    LockedError,
    ObjectNotFoundError,
    ReadOnlyStoreError,
    StateMismatchError,
    StorageFullError,
)
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.testing import FaultyStore


def steps_of(manager):
    return [e.name.step for e in CheckpointRoot(manager.root.path, read_only=True).checkpoints()]


def reasons_of(manager):
    events = CheckpointRoot(manager.root.path, read_only=True).journal.read()
    return [e.get("because") for e in events if e["event"] == "checkpoint_committed"]


def full(store):
    """A store on a disk that has become full."""
    return FaultyStore(store, fail_at=1, error=lambda: StorageFullError("full"), lasting=True)


def run_to_its_end(thread):
    """Run a thread, and wait for what it tells the main thread."""
    thread.start()
    thread.join()
    threading.Event().wait(10)


def end_by(error, run, *steps, **facts):
    """Run a loop in the `with` block of its manager that an error ends."""
    with run.manager:
        run.loop(*steps, **facts)
        raise error


def get_signal(number, run, before, after):
    """Run a loop in the `with` block of its manager, with a signal in the middle."""
    with run.manager:
        run.loop(*before)
        signal.raise_signal(number)
        run.loop(*after)


@pytest.fixture
def open_run(tmp_path):
    """Open a manager with a policy over a small model; all are closed at the end."""
    opened = []

    def make_run(policy, **more):
        model, optimizer = make()
        manager = CheckpointManagerV2(tmp_path / "root", save_policy=policy, **more)
        opened.append(manager)
        manager.update_experiment_hash(model, CONFIG, range(100))

        def loop(*steps, **facts):
            found = []
            for step in steps:
                train(model, optimizer)
                found.append(manager.step(step, model=model, optimizer=optimizer, **facts))
            return found

        return SimpleNamespace(manager=manager, model=model, optimizer=optimizer, loop=loop)

    yield make_run
    for manager in opened:
        manager.close()


def optimizers_in_latest(manager):
    training = manager.root.manifest(manager.root.latest()).state["training"]
    return list(training.get("optimizer", {}))


# ---------------------------------------------------------------- in the loop
def test_step_saves_when_the_policy_says_so_and_returns_the_path(open_run):
    run = open_run(FixedInterval(2) | SpecificSteps([5]))
    paths = run.loop(1, 2, 3, 4, 5)
    assert [path and path.name[-17:-12] for path in paths] == [
        None,
        "00002",
        None,
        "00004",
        "00005",
    ]
    assert steps_of(run.manager) == [2, 4, 5]
    assert reasons_of(run.manager) == ["every 2 steps", "every 2 steps", "step 5 was chosen"]


def test_a_step_is_saved_as_save_model_checkpoint_saves_it(open_run):
    run = open_run(FixedInterval(1))
    run.loop(1, metrics={"loss": 0.5}, metadata={"epoch": 0})
    entry = run.manager.root.latest()
    assert entry.metrics == {"loss": 0.5}
    run.manager.save_model_checkpoint(
        run.model, step=1, optimizer=run.optimizer, metrics={"loss": 0.5}, metadata={"epoch": 0}
    )
    assert [e.name.revision for e in run.manager.root.checkpoints()] == [1]  # the same content
    saved = state_of(run.model, run.optimizer)
    train(run.model, run.optimizer)
    found = run.manager.load_latest_checkpoint(run.model, optimizer=run.optimizer)
    assert (found["step"], found["metadata"]) == (1, {"epoch": 0})
    assert state_of(run.model, run.optimizer) == saved


def test_the_objects_given_last_are_used_again_and_held_weakly(open_run):
    run = open_run(FixedInterval(2))
    manager = run.manager
    manager.step(1, model=run.model, optimizer=run.optimizer)
    manager.step(2)
    assert optimizers_in_latest(manager) == ["optimizer"]
    alive = weakref.ref(run.optimizer)
    run.optimizer = run.loop = None
    gc.collect()
    assert alive() is None
    manager.step(4)
    assert optimizers_in_latest(manager) == []


def test_an_optimizer_is_not_used_for_another_model_than_it_was_given_for(open_run):
    run = open_run(FixedInterval(1))
    run.loop(1)
    other, _ = make(hidden=9)
    run.manager.update_experiment_hash(other)
    run.manager.step(2)
    assert optimizers_in_latest(run.manager) == []


def test_the_objects_of_the_ledger_are_used(open_run):
    run = open_run(FixedInterval(1))
    ledgers.register_model("main", run.model)
    ledgers.register_optimizer("main", run.optimizer)
    run.manager.step(1)
    assert run.manager.root.latest().parts == ("model", "training")


def test_weights_alone_and_other_arguments_of_a_save(open_run):
    run = open_run(FixedInterval(1))
    run.loop(1, save_optimizer=False)
    assert run.manager.root.latest().parts == ("model",)
    with pytest.raises(TypeError, match=r"step\(\) got 'metric'"):
        run.manager.step(2, metric={"loss": 1})


def test_time_counts_from_the_last_save_also_by_hand(open_run):
    run = open_run(TimeInterval(60))
    progress = run.manager._session.progress
    clock = SimpleNamespace(now=progress.saved_at)
    progress.clock = lambda: clock.now
    clock.now += 59
    assert run.loop(1) == [None]
    clock.now += 1
    assert run.loop(2) != [None]
    clock.now += 59
    run.manager.save_model_checkpoint(run.model, step=3, optimizer=run.optimizer)
    clock.now += 59
    assert run.loop(4) == [None]
    clock.now += 1
    assert run.loop(5) != [None]


def test_initial_save_comes_once_for_each_experiment_also_over_restarts(open_run):
    first = open_run(InitialSave())
    first.loop(1, 2)
    first.manager.update_experiment_hash(config={**CONFIG, "lr": 0.5})
    first.loop(3, 4)
    assert steps_of(first.manager) == [1, 3]
    again = open_run(InitialSave())
    again.loop(5)
    assert steps_of(again.manager) == [1, 3]


def test_a_load_says_where_the_run_goes_on(open_run):
    run = open_run(FixedInterval(10))
    run.loop(8, 9, 10, 11)
    run.manager.load_checkpoint(10, model=run.model, optimizer=run.optimizer)
    run.loop(19, 21)
    assert steps_of(run.manager) == [10, 21]


def test_without_a_policy_nothing_is_saved_and_that_is_said_once(open_run, caplog):
    run = open_run(None)
    run.loop(1, 2)
    assert caplog.text.count("saves nothing without a policy") == 1
    assert steps_of(run.manager) == []


def test_a_save_by_step_checks_what_every_save_checks(open_run):
    run = open_run(FixedInterval(2))
    run.model.append(torch.nn.Linear(2, 2))
    run.manager.step(1, model=run.model, optimizer=run.optimizer)
    with pytest.raises(StateMismatchError):
        run.manager.step(2, model=run.model, optimizer=run.optimizer)


def test_a_save_that_failed_is_due_again_at_the_next_step(open_run):
    run = open_run(FixedInterval(2))
    run.loop(1)
    store = run.manager.root.store
    run.manager.root.store = full(store)
    with pytest.raises(StorageFullError):
        run.loop(2)
    run.manager.root.store = store
    run.loop(3, 4, 5)
    assert steps_of(run.manager) == [3, 4]


def test_a_failed_save_in_the_background_is_told_before_anything_else(open_run):
    run = open_run(FixedInterval(2), async_save=True)
    store = run.manager.root.store
    run.manager.root.store = full(store)
    run.loop(1, 2)
    run.manager._session.saver.finish()
    run.manager.root.store = store
    with pytest.raises(AsyncSaveError):
        run.loop(3)  # nothing is due here
    run.loop(3, 4)
    run.manager.wait()
    assert steps_of(run.manager) == [4]


def test_wrong_states_and_arguments(open_run, tmp_path):
    run = open_run(FixedInterval(2))
    for wrong, error in ((-1, ValueError), (None, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error):
            run.manager.step(wrong)
    run.manager.close()
    with pytest.raises(LockedError):
        run.manager.step(1)
    with pytest.raises(ValueError, match="read_only=True contradict each other"):
        CheckpointManagerV2(run.manager.root.path, read_only=True, save_policy=AtExit())
    reader = CheckpointManagerV2(run.manager.root.path, read_only=True)
    with pytest.raises(ReadOnlyStoreError):
        reader.step(1)
    with pytest.raises(TypeError, match="100 is no save policy"):
        CheckpointManagerV2(tmp_path / "other", save_policy=100)
    empty = CheckpointManagerV2(tmp_path / "other", save_policy=FixedInterval(5))
    with pytest.raises(ExperimentNotFoundError):
        empty.step(1)


# ---------------------------------------------------------------- the end
def test_close_saves_the_last_step_once(open_run):
    run = open_run(FixedInterval(2) | AtExit())
    run.loop(1, 2, 3)
    state = state_of(run.model, run.optimizer)
    run.manager.close()
    run.manager.close()
    assert steps_of(run.manager) == [2, 3]
    assert reasons_of(run.manager) == ["every 2 steps", "exit"]
    with CheckpointManagerV2(run.manager.root.path) as reader:
        reader.load_latest_checkpoint(run.model, optimizer=run.optimizer)
    assert state_of(run.model, run.optimizer) == state


def test_close_saves_nothing_that_is_saved_loaded_or_of_another_experiment(open_run, caplog):
    saved = open_run(FixedInterval(1) | AtExit(), async_save=True)
    saved.loop(1)
    saved.manager.close()
    loaded = open_run(AtExit())
    loaded.loop(2)
    loaded.manager.load_latest_checkpoint(loaded.model, optimizer=loaded.optimizer)
    loaded.manager.close()
    left = open_run(AtExit())
    left.loop(3)
    left.manager.update_experiment_hash(config={"lr": 0.9})
    left.manager.close()
    assert steps_of(saved.manager) == [1]
    assert "which is not current any more" in caplog.text


def test_close_does_not_save_weights_that_went_on_under_the_last_step(open_run, caplog):
    run = open_run(AtExit())
    run.loop(1)
    train(run.model, run.optimizer)
    run.manager.close()
    assert steps_of(run.manager) == []
    assert "step 1 is not saved at the end (exit): 1 optimizer step(s) came after it" in caplog.text


def test_close_tells_where_the_model_is_gone(open_run):
    run = open_run(AtExit())
    run.loop(1)
    run.model = run.optimizer = run.loop = None
    gc.collect()
    with pytest.raises(ObjectNotFoundError, match=r"step 1 cannot be saved: the .* is gone"):
        run.manager.close()


def test_an_exception_saves_the_last_completed_step_with_a_mark(open_run):
    run = open_run(OnException())
    with pytest.raises(KeyError, match="mine"):
        end_by(KeyError("mine"), run, 1, 2, metadata={"epoch": 4})
    (entry,) = run.manager.root.checkpoints()
    manifest = run.manager.root.manifest(entry)
    assert entry.name.step == 2
    assert manifest.metadata == {"epoch": 4, "saved_on": "exception"}
    assert reasons_of(run.manager) == ["exception (KeyError)"]


@pytest.mark.parametrize(
    ("metadata", "marked"),
    [
        (None, {"saved_on": "exception"}),
        ([1, 2], {"metadata": [1, 2], "saved_on": "exception"}),
    ],
)
def test_the_mark_leaves_metadata_of_any_kind_whole(open_run, metadata, marked):
    run = open_run(OnException())
    with pytest.raises(RuntimeError):
        end_by(RuntimeError(), run, 1, metadata=metadata)
    assert run.manager.root.manifest(run.manager.root.latest()).metadata == marked


def test_an_exception_saves_nothing_that_is_saved_already(open_run):
    run = open_run(FixedInterval(2) | OnException())
    with pytest.raises(RuntimeError):
        end_by(RuntimeError(), run, 1, 2)
    assert [(e.name.step, e.name.revision) for e in run.manager.root.checkpoints()] == [(2, 1)]
    assert reasons_of(run.manager) == ["every 2 steps"]


def test_an_exception_in_the_middle_of_an_optimizer_step_saves_nothing(open_run, caplog):
    run = open_run(OnException())

    def closure():
        raise RuntimeError("no gradients")

    run.loop(1)
    with pytest.raises(RuntimeError, match="no gradients"), run.manager:
        run.optimizer.step(closure)
    assert steps_of(run.manager) == []
    assert "half old and half new" in caplog.text


def test_the_exception_of_the_user_is_not_masked_by_a_save_that_fails(open_run, caplog):
    run = open_run(OnException())
    run.loop(1)
    run.manager.root.store = full(run.manager.root.store)
    with pytest.raises(KeyError, match="mine"):
        end_by(KeyError("mine"), run)
    assert "step 1 could not be saved" in caplog.text


def test_sys_exit_is_an_exit_and_no_exception(open_run):
    run = open_run(OnException())
    with pytest.raises(SystemExit):
        end_by(SystemExit(0), run, 1)
    assert steps_of(run.manager) == []


# ---------------------------------------------------------------- signals
@pytest.mark.parametrize("async_save", [False, True])
def test_a_signal_saves_the_next_complete_step_and_ends_the_loop(open_run, async_save, caplog):
    run = open_run(FixedInterval(2) | OnPreemption(), async_save=async_save)
    with pytest.raises(Preempted) as caught:
        get_signal(signal.SIGTERM, run, before=(1, 2), after=(3, 4))
    assert caught.value.code == 143
    assert steps_of(run.manager) == [2, 3]
    assert reasons_of(run.manager) == ["every 2 steps", "SIGTERM"]
    assert "step 3 is on disk" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_waits_for_the_save_under_way_and_repeats_it_if_it_fails(open_run):
    run = open_run(FixedInterval(1) | OnPreemption(), async_save=True)
    store = run.manager.root.store
    run.manager.root.store = full(store)
    run.loop(1)
    signal.raise_signal(signal.SIGTERM)
    run.manager._session.saver.finish()
    run.manager.root.store = store
    with pytest.raises(Preempted):
        run.loop(2)
    assert steps_of(run.manager) == [2]
    with pytest.raises(AsyncSaveError):  # told once, after all
        run.manager.close()


def test_a_step_whose_save_under_way_fails_is_saved_again_before_the_end(open_run, monkeypatch):
    run = open_run(OnPreemption(), async_save=True)
    run.loop(1)
    gate, store, saver = threading.Event(), run.manager.root.store, run.manager._session.saver

    class Stuck:
        def __getattr__(self, name):
            return getattr(store, name)

        def hold(self, key):
            run.manager.root.store = store  # the next save finds room
            assert gate.wait(60)
            raise StorageFullError("full")

    run.manager.root.store = Stuck()
    run.manager.save_model_checkpoint(run.model, step=2, optimizer=run.optimizer)
    finish = saver.finish
    monkeypatch.setattr(saver, "finish", lambda: (gate.set(), finish()))
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        run.manager.step(2, model=run.model, optimizer=run.optimizer)
    assert steps_of(run.manager) == [2]
    assert reasons_of(run.manager) == ["SIGTERM"]
    with pytest.raises(AsyncSaveError):
        run.manager.close()


def test_a_signal_does_not_save_a_step_again(open_run):
    run = open_run(OnPreemption(signal.SIGUSR1, then="continue"))
    run.loop(1)
    run.manager.save_model_checkpoint(run.model, step=2, optimizer=run.optimizer)
    signal.raise_signal(signal.SIGUSR1)
    assert run.manager.step(2, model=run.model, optimizer=run.optimizer) is None
    events = [event["event"] for event in run.manager.root.journal.read()]
    assert events[-2:] == ["checkpoint_begun", "checkpoint_committed"]


def test_ctrl_c_is_a_keyboard_interrupt_after_the_save(open_run):
    run = open_run(OnPreemption())
    run.loop(1)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.loop(2)
    assert steps_of(run.manager) == [2]
    assert run.loop(3) == [None]  # a notebook may go on


def test_a_signal_whose_save_fails_is_not_lost(open_run):
    run = open_run(OnPreemption())
    store = run.manager.root.store
    run.loop(1)
    signal.raise_signal(signal.SIGTERM)
    run.manager.root.store = full(store)
    with pytest.raises(StorageFullError):
        run.loop(2)
    run.manager.root.store = store
    with pytest.raises(Preempted):
        run.loop(3)
    assert steps_of(run.manager) == [3]


def test_a_signal_after_the_last_step_is_passed_on_by_close(open_run):
    run = open_run(OnPreemption())
    run.loop(1)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        run.manager.close()
    assert steps_of(run.manager) == [1]
    assert reasons_of(run.manager) == ["SIGTERM"]


def test_a_signal_that_means_save_now_lets_training_go_on(open_run):
    run = open_run(OnPreemption(signal.SIGUSR1, then="continue"))
    run.loop(1)
    signal.raise_signal(signal.SIGUSR1)
    run.loop(2, 3)
    assert steps_of(run.manager) == [2]
    assert reasons_of(run.manager) == ["SIGUSR1"]


def test_a_save_that_is_likely_to_be_late_is_done_and_said(open_run, caplog):
    run = open_run(OnPreemption(grace_seconds=5.0))
    run.loop(1)
    run.manager._session.progress.commit_seconds = 6.0
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        run.loop(2)
    assert "likely to be late for the 5 s granted; saving step 2" in caplog.text
    assert steps_of(run.manager) == [2]


def test_a_thread_may_step_and_the_main_thread_is_told(open_run):
    run = open_run(OnPreemption())
    run.loop(1)
    signal.raise_signal(signal.SIGINT)
    thread = threading.Thread(target=run.loop, args=(2,))
    with pytest.raises(KeyboardInterrupt):
        run_to_its_end(thread)
    thread.join()
    assert steps_of(run.manager) == [2]


def test_logging_of_a_save_by_policy_needs_no_level(open_run, caplog):
    run = open_run(FixedInterval(1))
    with caplog.at_level(logging.DEBUG):
        run.loop(1)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


# ---------------------------------------------------------------- other processes
def test_a_rank_that_does_not_write_leaves_the_end_to_the_one_that_does(open_run, monkeypatch):
    run = open_run(FixedInterval(3) | OnPreemption())
    run.loop(1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    signal.raise_signal(signal.SIGTERM)
    paths = run.loop(2, 3)
    assert [path and path.name[-17:-12] for path in paths] == [None, "00003"]
    assert steps_of(run.manager) == []
    with pytest.raises(Preempted):
        run.manager.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_step_and_its_signals_are_its_own(open_run):
    run = open_run(FixedInterval(1) | OnPreemption() | AtExit())
    run.loop(1)
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(LockedError):
            run.manager.step(2)
            status = 2
        os._exit(status if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    run.loop(2)
    assert steps_of(run.manager) == [1, 2]
