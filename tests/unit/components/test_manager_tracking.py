"""Training state: what is tracked or registered is saved and restored with the optimizers."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from support.training import CONFIG, bits, make, state_of, train
from torch.optim.swa_utils import AveragedModel

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import NotStorableError, StateMismatchError


@pytest.fixture(autouse=True)
def untouched():
    """Leave the random state of the tests as it was."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def draw():
    return random.random(), float(np.random.normal()), torch.randn(3).tolist()


def step_lr(optimizer, size=2):
    return torch.optim.lr_scheduler.StepLR(optimizer, size)


class Position:
    """Something with a state; refuses what it is told to refuse."""

    def __init__(self, position=0, *, refuses=False):
        self.position, self.refuses = position, refuses

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        if self.refuses:
            raise ValueError("another length")
        self.position = state["position"]


class PositionSampler(Position, torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(3))

    def __len__(self):
        return 3


# ---------------------------------------------------------------- what is saved comes back
def test_tracked_objects_come_back_with_the_optimizer(run):
    scheduler, ema = step_lr(run.optimizer), AveragedModel(run.model)
    order, shuffle = random.Random(3), torch.Generator().manual_seed(5)
    run.manager.track(scheduler=scheduler, ema=ema, order=order, shuffle=shuffle)
    train(run.model, run.optimizer)
    scheduler.step()
    ema.update_parameters(run.model)
    run.save(1)
    before = state_of(run.model, run.optimizer, scheduler, ema)
    expected = order.random(), torch.rand(2, generator=shuffle).tolist()
    train(run.model, run.optimizer)
    scheduler.step()
    ema.update_parameters(run.model)

    found = run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)

    assert state_of(run.model, run.optimizer, scheduler, ema) == before
    assert (order.random(), torch.rand(2, generator=shuffle).tolist()) == expected
    assert set(found["report"].tracked) == {"scheduler", "ema", "order", "shuffle"}
    assert "tracked objects restored: " in str(found["report"])


def test_object_that_nobody_else_holds_is_held(run):
    run.manager.track(position=Position(7))
    run.save(1)
    other = Position()
    run.manager.track(position=other)
    run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)
    assert other.position == 7


def test_name_given_none_is_tracked_no_more(run):
    run.manager.track(position=Position(7), other=None)
    run.manager.track(position=None)
    run.save(1)
    report = run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)["report"]
    assert report.tracked == ()


def test_registered_schedulers_and_loaders_come_back(run):
    scheduler, sampler = step_lr(run.optimizer), PositionSampler(4)
    stateful, data = Position(9), torch.utils.data.TensorDataset(torch.zeros(3))
    ledgers.register_scheduler("main", scheduler)
    ledgers.register_dataloader("train", torch.utils.data.DataLoader(data, batch_sampler=sampler))
    ledgers.register_dataloader("own", stateful)
    ledgers.register_dataloader("plain", torch.utils.data.DataLoader(data))
    run.save(1)
    scheduler.last_epoch, sampler.position, stateful.position = 5, 6, 7
    report = run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)["report"]
    assert (scheduler.last_epoch, sampler.position, stateful.position) == (0, 4, 9)
    assert set(report.tracked) == {"scheduler.main", "dataloader.train", "dataloader.own"}


def test_registered_object_that_is_tracked_is_saved_once(run):
    scheduler = step_lr(run.optimizer)
    ledgers.register_scheduler("main", scheduler)
    run.manager.track(mine=scheduler)
    run.save(1)
    report = run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)["report"]
    assert report.tracked == ("mine",)


def test_epoch_and_samples_seen_are_told_by_loads(run):
    run.save(1, epoch=3, samples_seen=np.int64(640))
    run.save(2, save_optimizer=False, epoch=4)
    run.save(3, save_optimizer=False)
    told = [
        run.manager.load_checkpoint(step, model=run.model, load_optimizer=False)
        for step in (1, 2, 3)
    ]
    assert [(f["epoch"], f["samples_seen"]) for f in told] == [(3, 640), (4, None), (None, None)]
    assert not run.weights(2, ".training.safetensors").exists()


@pytest.mark.parametrize("more", [{"epoch": 1.5}, {"epoch": True}, {"samples_seen": "9"}])
def test_progress_that_is_no_count_is_refused_and_nothing_saved(run, more):
    with pytest.raises(TypeError, match="is an int >= 0"):
        run.save(1, **more)
    assert run.manager.root.checkpoints() == []


# ---------------------------------------------------------------- random state
def test_random_state_comes_back_when_asked_and_only_then(run):
    run.save(1)
    expected = [draw() for _ in range(3)]
    run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)
    assert draw() != expected[0]
    found = run.manager.load_latest_checkpoint(run.model, optimizer=run.optimizer, load_random=True)
    assert [draw() for _ in range(3)] == expected
    assert found["report"].random_restored


def test_random_state_comes_back_without_the_optimizer(run):
    run.save(1)
    expected = draw()
    run.manager.load_checkpoint(1, model=run.model, load_optimizer=False, load_random=True)
    assert draw() == expected


def test_random_state_is_restored_after_objects_that_draw(run):
    class Drawing(Position):
        def load_state_dict(self, state):
            draw()

    run.manager.track(drawing=Drawing())
    run.save(1)
    expected = draw()
    run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer, load_random=True)
    assert draw() == expected


def test_random_state_that_is_not_there_is_an_error_and_nothing_changes(run):
    run.save(1, save_optimizer=False)
    train(run.model, run.optimizer)
    before = state_of(run.model)
    load = {"model": run.model, "load_optimizer": False, "load_random": True}
    with pytest.raises(
        StateMismatchError, match="holds no random state; it was saved with save_op"
    ):
        run.manager.load_checkpoint(1, **load)
    assert state_of(run.model) == before
    assert not run.manager.load_checkpoint(1, **load, strict=False)["report"].random_restored


def test_step_saved_twice_is_one_checkpoint_until_numbers_are_drawn(run):
    run.manager.track(scheduler=step_lr(run.optimizer))
    first = run.save(1)
    assert run.save(1) == first
    torch.rand(1)
    assert run.save(1).name.endswith("_step_000001.r2.safetensors")
    assert run.save(1, save_optimizer=False).name.endswith(".r3.safetensors")


# ---------------------------------------------------------------- names on one side
def loaded(run, **more):
    more = {"model": run.model, "optimizer": run.optimizer} | more
    return run.manager.load_checkpoint(1, **more)


def test_names_on_one_side_are_an_error_that_names_both(run):
    run.manager.track(a=Position(1), b=Position(2))
    run.save(1)
    run.manager.track(b=None, c=Position(3))
    train(run.model, run.optimizer)
    before = state_of(run.model, run.optimizer)
    with pytest.raises(
        StateMismatchError, match="tracked objects a, b, the live ones are a, c"
    ) as e:
        loaded(run)
    assert (e.value.missing, e.value.unexpected) == (("c",), ("b",))
    assert state_of(run.model, run.optimizer) == before


def test_names_on_both_sides_are_restored_without_strict(run, caplog):
    run.manager.track(a=Position(1), b=Position(2))
    run.save(1)
    a, c = Position(), Position(3)
    run.manager.track(a=a, b=None, c=c)
    report = loaded(run, strict=False)["report"]
    assert (a.position, c.position) == (1, 3)
    assert report.tracked_left_out == {"b": "no tracked object of this name"}
    assert "holds no state of c: left as they are" in caplog.text


def test_optimizer_without_the_scheduler_that_was_saved_is_an_error(run):
    run.manager.track(scheduler=step_lr(run.optimizer))
    run.save(1)
    run.manager.track(scheduler=None)
    with pytest.raises(StateMismatchError, match=r"objects scheduler, the live ones are \(none\)"):
        loaded(run)


def test_weights_alone_are_loaded_with_a_warning_or_without(run, caplog):
    run.manager.track(scheduler=step_lr(run.optimizer))
    run.save(1)
    run.manager.track(scheduler=None)
    report = loaded(run, optimizer=None)["report"]
    assert report.tracked_left_out == {"scheduler": "no tracked object of this name"}
    assert "holds the state of scheduler, but nothing is tracked" in caplog.text
    caplog.clear()
    report = loaded(run, optimizer=None, load_optimizer=False)["report"]
    assert report.tracked_left_out == {"scheduler": "load_optimizer=False"}
    assert caplog.text == ""


def test_checkpoint_of_weights_alone_leaves_registered_objects_with_a_warning(run, caplog):
    run.save(1, save_optimizer=False)
    ledgers.register_scheduler("main", step_lr(run.optimizer))
    loaded(run, optimizer=None)
    assert "holds no state of scheduler.main: left as they are" in caplog.text
    run.manager.track(mine=Position())
    with pytest.raises(
        StateMismatchError, match=r"\(none\), the live ones are mine, scheduler.main"
    ):
        loaded(run, optimizer=None)


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize("item", [3, "text", torch.zeros(1), object()])
def test_what_has_no_state_cannot_be_tracked(run, item):
    with pytest.raises(TypeError, match=r"^thing is a"):
        run.manager.track(good=Position(), thing=item)
    run.save(1)
    assert loaded(run)["report"].tracked == ()  # good is not tracked either


def test_name_that_is_no_label_is_refused(run):
    with pytest.raises(ValueError, match="name of a tracked object"):
        run.manager.track(**{"a/b": Position()})


def test_part_that_cannot_be_saved_is_named_and_nothing_is_written(run):
    position = Position(print)
    run.manager.track(position=position)
    with pytest.raises(NotStorableError, match=r"tracked\.position\.state\.position is a builtins"):
        run.save(1)
    assert run.manager.root.checkpoints() == []
    position.position = 3
    run.save(1)


def test_registered_scheduler_without_a_state_is_named_and_nothing_is_written(run):
    ledgers.register_scheduler("main", object())
    with pytest.raises(NotStorableError, match="registered scheduler 'main' has no state_dict"):
        run.save(1)
    assert run.manager.root.checkpoints() == []
    run.save(1, save_optimizer=False)


def test_object_that_refuses_its_state_leaves_the_model_as_it_was(run):
    position = Position(1)
    run.manager.track(position=position)
    run.save(1)
    position.refuses = True
    train(run.model, run.optimizer)
    before = state_of(run.model, run.optimizer)
    with pytest.raises(Exception, match="another length"):
        loaded(run)
    assert state_of(run.model, run.optimizer) == before


def test_tracked_object_of_another_class_is_refused_before_anything_changes(run):
    other = torch.optim.lr_scheduler.ExponentialLR(run.optimizer, 0.9)
    run.manager.track(scheduler=step_lr(run.optimizer))
    run.save(1)
    train(run.model, run.optimizer)
    run.manager.track(scheduler=other)
    before = state_of(run.model, run.optimizer, other)
    with pytest.raises(
        StateMismatchError, match=r"^scheduler: the checkpoint holds the state of .*Ste"
    ):
        loaded(run)
    assert state_of(run.model, run.optimizer, other) == before
    report = loaded(run, strict=False)["report"]
    assert "not of torch.optim.lr_scheduler.ExponentialLR" in report.tracked_left_out["scheduler"]


# ---------------------------------------------------------------- several processes
@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)


def test_another_world_size_is_an_error_for_random_state_and_samplers(run, request):
    run.manager.track(sampler=PositionSampler(1), other=Position(2))
    run.save(1)
    request.getfixturevalue("two_ranks")
    with pytest.raises(
        StateMismatchError, match="sampler was saved with a world size of 1 and cannot"
    ):
        loaded(run)
    report = loaded(run, strict=False)["report"]
    assert report.tracked == ("other",)
    with pytest.raises(StateMismatchError, match="random state was saved with a world size of 1"):
        loaded(run, load_optimizer=False, load_random=True, optimizer=None)


def test_rank_above_0_keeps_its_own_random_state_and_says_so(run, two_ranks, monkeypatch, caplog):
    run.save(1)
    first = loaded(run, load_random=True)["report"].random_restored
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    second = loaded(run, load_random=True)["report"].random_restored
    assert (first, second) == (True, False)
    assert "is that of rank 0; rank 1 keeps its own" in caplog.text


# ---------------------------------------------------------------- in the background
def test_snapshot_holds_tracked_objects_and_random_state_still(tmp_path):
    model, optimizer = make()
    gate = threading.Event()
    with CheckpointManagerV2(tmp_path / "root", async_save=True) as manager:
        manager.update_experiment_hash(model, CONFIG, range(5))
        put = manager.root.store.put

        def held(key, parts, **more):
            assert gate.wait(60)
            return put(key, parts, **more)

        manager.root.store.put = held
        ema, position, order = AveragedModel(model), Position({"at": [1]}), random.Random(1)
        manager.track(ema=ema, position=position, order=order)
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        averages, expected = bits(ema.state_dict()), (order.random(), draw())
        train(model, optimizer)
        ema.update_parameters(model)
        position.position["at"].append(2)
        gate.set()
        manager.load_checkpoint(1, model=model, optimizer=optimizer, load_random=True)
        assert bits(ema.state_dict()) == averages
        assert position.position == {"at": [1]}
        assert (order.random(), draw()) == expected
