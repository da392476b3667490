"""Saving in the background: a true snapshot, in order, and no error is lost."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
import torch
from support.training import CONFIG, make, train

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import AsyncSaveError, StorageFullError
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.testing import FaultyStore


class GatedStore:
    """A store that lets files be written only while its gate is open."""

    def __init__(self, store):
        self._store = store
        self.gate = threading.Event()
        self.reached = threading.Event()

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, parts, *, if_absent=False):
        self.reached.set()
        assert self.gate.wait(60)
        return self._store.put(key, parts, if_absent=if_absent)


def open_manager(path, **more):
    model, optimizer = make()
    train(model, optimizer)
    manager = CheckpointManagerV2(path, async_save=True, **more)
    manager.update_experiment_hash(model, CONFIG, range(100))
    return manager, model, optimizer


@pytest.fixture
def gated(tmp_path):
    manager, model, optimizer = open_manager(tmp_path / "root")
    store = manager.root.store = GatedStore(manager.root.store)
    yield manager, store, model, optimizer
    store.gate.set()
    manager.close()


def copy_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def loaded(manager, step):
    model, optimizer = make()
    manager.load_checkpoint(step, model=model, optimizer=optimizer)
    return model, optimizer


def test_values_changed_after_the_call_never_reach_the_file(gated):
    manager, store, model, optimizer = gated
    before = copy_of(model)
    moments = optimizer.state_dict()["state"][0]["exp_avg"].clone()
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metadata={"note": [1]})
    train(model, optimizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    store.gate.set()
    saved, saved_optimizer = loaded(manager, 1)
    assert all(torch.equal(saved.state_dict()[key], value) for key, value in before.items())
    assert torch.equal(saved_optimizer.state_dict()["state"][0]["exp_avg"], moments)


def test_save_returns_before_anything_is_written(gated):
    manager, store, model, optimizer = gated
    path = manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    assert store.reached.wait(60)
    assert not path.exists()
    assert manager.root.latest(manager.current_hash) is None
    store.gate.set()
    manager.wait()
    assert path.exists()


def test_second_save_waits_for_the_first(gated):
    manager, store, model, optimizer = gated
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    second = threading.Thread(
        target=manager.save_model_checkpoint,
        args=(model,),
        kwargs={"step": 2, "optimizer": optimizer},
    )
    second.start()
    assert store.reached.wait(60)
    assert manager.root.find_checkpoint(manager.current_hash, 1) is None
    assert second.is_alive()
    store.gate.set()
    second.join(60)
    manager.wait()
    assert [e.name.step for e in manager.root.checkpoints()] == [1, 2]


def test_queue_depth_lets_several_snapshots_be_under_way(tmp_path):
    manager, model, optimizer = open_manager(tmp_path / "root", queue_depth=3)
    store = manager.root.store = GatedStore(manager.root.store)
    states = []
    for step in (1, 2, 3):
        states.append(copy_of(model))
        manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
        train(model, optimizer)
    assert manager.root.checkpoints() == []
    store.gate.set()
    manager.close()
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as reader:
        for step, state in enumerate(states, start=1):
            saved = loaded(reader, step)[0].state_dict()
            assert all(torch.equal(saved[key], value) for key, value in state.items())
        entries = reader.root.checkpoints()
        assert [e.sequence for e in entries] == [1, 2, 3]
        assert [e.parent.step for e in entries] == [None, 1, 2]


def test_background_and_direct_saves_write_the_same(tmp_path):
    model, optimizer = make()
    train(model, optimizer)
    content = []
    for name, in_background in (("a", False), ("b", True)):
        with CheckpointManagerV2(tmp_path / name, async_save=in_background) as manager:
            manager.update_experiment_hash(model, CONFIG, range(100))
            path = manager.save_model_checkpoint(model, step=7, optimizer=optimizer)
            manager.wait()
            entry = manager.root.latest()
            content.append(
                (path.name, path.read_bytes(), read_manifest(manager.root.store, entry.name))
            )
    assert content[0][:2] == content[1][:2]
    assert content[0][2].content() == content[1][2].content()
    assert content[0][2].files == content[1][2].files


def test_failed_save_is_raised_at_the_next_one_which_is_not_begun(tmp_path, caplog):
    manager, model, optimizer = open_manager(tmp_path / "root")
    good = manager.root.store
    manager.root.store = FaultyStore(
        good, fail_at=3, error=lambda: StorageFullError("no space left")
    )
    with caplog.at_level(logging.ERROR):
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        with pytest.raises(AsyncSaveError, match=r"saving step 1 .* no space left") as caught:
            manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
    assert isinstance(caught.value.__cause__, StorageFullError)
    assert "failed in the background" in caplog.text
    manager.root.store = good
    manager.save_model_checkpoint(model, step=3, optimizer=optimizer)
    manager.close()
    assert [e.name.step for e in manager.root.checkpoints()] == [3]


@pytest.mark.parametrize("call", ["wait", "close", "list_experiment_hashes"])
def test_failed_save_is_raised_by_whatever_comes_next_and_only_once(tmp_path, call):
    manager, model, optimizer = open_manager(tmp_path / "root")
    manager.root.store = FaultyStore(
        manager.root.store, fail_at=1, error=lambda: StorageFullError("full")
    )
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    with pytest.raises(AsyncSaveError):
        getattr(manager, call)()
    manager.close()


def test_with_block_waits_and_raises_but_does_not_hide_an_error_of_the_block(tmp_path):
    manager, model, optimizer = open_manager(tmp_path / "a")
    with manager:
        path = manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    assert path.exists()
    manager, model, optimizer = open_manager(tmp_path / "b")
    manager.root.store = FaultyStore(
        manager.root.store, fail_at=1, error=lambda: StorageFullError("full")
    )
    with pytest.raises(ZeroDivisionError), manager:  # noqa: PT012 - the block is what is tested
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        1 / 0  # noqa: B018
    manager, model, optimizer = open_manager(tmp_path / "c")
    manager.root.store = FaultyStore(
        manager.root.store, fail_at=1, error=lambda: StorageFullError("full")
    )
    with pytest.raises(AsyncSaveError), manager:
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)


def test_loading_sees_what_was_saved_just_before(tmp_path):
    manager, model, optimizer = open_manager(tmp_path / "root")
    for step in (1, 2, 3):
        manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
        assert manager.load_latest_checkpoint(model, optimizer=optimizer)["step"] == step
    manager.close()


def test_host_memory_is_used_again(tmp_path, monkeypatch):
    from weightslab.engine.saving import buffers

    manager, model, optimizer = open_manager(tmp_path / "root")
    made, plain = [], buffers.mmap.mmap

    def count(*args, **kwargs):
        made.append(args)
        return plain(*args, **kwargs)

    monkeypatch.setattr(buffers.mmap, "mmap", count)
    for step in range(4):
        train(model, optimizer)
        manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
    manager.root.store.list("")  # maps nothing
    manager.close()
    assert len([args for args in made if args[0] == -1]) == 1


def test_snapshot_that_fails_gives_its_place_back(tmp_path):
    manager, model, optimizer = open_manager(tmp_path / "root")
    with pytest.raises(TypeError, match="metadata"):
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metadata={"x": object()})
    manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
    manager.close()
    assert [e.name.step for e in manager.root.checkpoints()] == [2]


@pytest.mark.parametrize("depth", [0, -1, True, 1.5])
def test_queue_depth_that_makes_no_sense_is_refused(tmp_path, depth):
    with pytest.raises(ValueError, match="queue_depth is an int >= 1"):
        CheckpointManagerV2(tmp_path, async_save=True, queue_depth=depth)


@pytest.mark.slow
def test_forked_child_ends_without_waiting_for_the_saves_of_its_parent(tmp_path):
    code = (
        "import os, sys, threading, torch\n"
        "from weightslab.engine.saving.background import BackgroundWriter\n"
        "writer, gate = BackgroundWriter(), threading.Event()\n"
        "writer.reserve()\n"
        "writer.start('a save', gate.wait)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "gate.set()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "7\n"


@pytest.mark.slow
def test_end_of_the_interpreter_waits_for_the_commit(tmp_path):
    code = (
        "import sys, torch\n"
        "from weightslab.components import CheckpointManagerV2\n"
        "model = torch.nn.Linear(1000, 2000)\n"
        "manager = CheckpointManagerV2(sys.argv[1], async_save=True)\n"
        "manager.update_experiment_hash(model=model)\n"
        "manager.save_model_checkpoint(model, step=5, save_optimizer=False)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "root")], check=True)
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as reader:
        assert [e.name.step for e in reader.root.checkpoints()] == [5]
        assert reader.root.verify() == []


@pytest.mark.slow
def test_failed_save_at_the_end_of_the_interpreter_is_written_to_standard_error(tmp_path):
    code = (
        "import sys, torch\n"
        "from weightslab.components import CheckpointManagerV2\n"
        "from weightslab.engine.testing import FaultyStore\n"
        "from weightslab.engine.errors import StorageFullError\n"
        "model = torch.nn.Linear(2, 2)\n"
        "manager = CheckpointManagerV2(sys.argv[1], async_save=True)\n"
        "manager.update_experiment_hash(model=model)\n"
        "manager.root.store = FaultyStore(\n"
        "    manager.root.store, fail_at=1, error=lambda: StorageFullError('no space left'))\n"
        "manager.save_model_checkpoint(model, step=5, save_optimizer=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "root")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "saving step 5" in done.stderr
    assert "no space left" in done.stderr
