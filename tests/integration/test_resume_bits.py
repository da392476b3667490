"""A training that was stopped and goes on from its checkpoint has the bits of one that was not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from support.training import bits
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import AveragedModel

from weightslab.components import CheckpointManagerV2

STEPS = 9
CONFIG = {"lr": 0.01}

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "AdamW tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01, t0=2),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=4),
    "LBFGS line search": lambda p: torch.optim.LBFGS(
        p, lr=0.5, max_iter=3, line_search_fn="strong_wolfe"
    ),
}
SCHEDULERS = {
    "StepLR": lambda o: lrs.StepLR(o, 2, gamma=0.5),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.02, total_steps=STEPS + 1, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=0, factor=0.5),
    "SequentialLR": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, 0.1, total_iters=3), lrs.LambdaLR(o, lambda epoch: 0.9**epoch)], [3]
    ),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler(
        [lrs.ConstantLR(o, 0.5, total_iters=3), lrs.ExponentialLR(o, 0.9)]
    ),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 2, 2),
}


class Training:
    """A whole training: dropout, batch norm, an average, generators of its own and global ones."""

    def __init__(self, optimizer, scheduler, *, autocast=False, accumulate=1, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
        )
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.ema = AveragedModel(self.model)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        self.order, self.noise = random.Random(seed), np.random.default_rng(seed)
        self.augment = torch.Generator().manual_seed(seed)
        self.autocast, self.accumulate = autocast, accumulate
        self.losses = []

    def tracked(self):
        names = ("scheduler", "ema", "scaler", "order", "noise", "augment")
        return {name: getattr(self, name) for name in names}

    def batch(self):
        rows = [self.order.random() + random.random() for _ in range(4)]
        x = torch.randn(4, 6, generator=self.augment) + torch.tensor(rows)[:, None].float()
        shift = float(self.noise.normal() + np.random.normal())
        return x + shift, torch.randint(2, (4,))

    def loss(self, x, y):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return nn.functional.cross_entropy(self.model(x), y)

    def step(self):
        batches = [self.batch() for _ in range(self.accumulate)]
        if isinstance(self.optimizer, torch.optim.LBFGS):

            def closure():
                self.optimizer.zero_grad()
                loss = self.loss(*batches[0])
                loss.backward()
                return loss

            loss = self.optimizer.step(closure).detach()
        else:
            self.optimizer.zero_grad()
            for x, y in batches:
                loss = self.loss(x, y)
                self.scaler.scale(loss / len(batches)).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if isinstance(self.scheduler, lrs.ReduceLROnPlateau):
            self.scheduler.step(loss.item())
        else:
            self.scheduler.step()
        self.ema.update_parameters(self.model)
        self.losses.append(loss.item().hex())

    def state(self):
        objects = (self.model, self.optimizer, self.scheduler, self.ema, self.scaler)
        return [bits(each.state_dict()) for each in objects], self.batch()[0].tolist()


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check(folder, optimizer, scheduler, *, stop, into_stepped, **more):
    """Train to the end; then again from a checkpoint in the middle, in new objects."""
    with CheckpointManagerV2(folder) as manager:
        whole = Training(optimizer, scheduler, **more)
        manager.update_experiment_hash(whole.model, CONFIG, range(9))
        manager.track(**whole.tracked())
        seed_all(5)
        for step in range(STEPS):
            if step == stop:
                manager.save_model_checkpoint(whole.model, step=stop, optimizer=whole.optimizer)
            whole.step()
        expected = whole.state()

        again = Training(optimizer, scheduler, seed=3, **more)
        seed_all(77)
        for _ in range(2 if into_stepped else 0):
            again.step()
        again.losses.clear()
        manager.track(**again.tracked())
        manager.load_checkpoint(
            stop, model=again.model, optimizer=again.optimizer, load_random=True
        )
        for _ in range(stop, STEPS):
            again.step()
    assert again.losses == whole.losses[stop:]
    assert again.state() == expected


@pytest.fixture(autouse=True)
def untouched():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


pytestmark = pytest.mark.filterwarnings(
    "ignore:The epoch parameter in `scheduler.step:UserWarning",
    "ignore:Detected call of `lr_scheduler.step:UserWarning",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, optimizer):
    scheduler = list(SCHEDULERS)[list(OPTIMIZERS).index(optimizer) % len(SCHEDULERS)]
    stop = 1 + list(OPTIMIZERS).index(optimizer) % (STEPS - 2)
    check(tmp_path, optimizer, scheduler, stop=stop, into_stepped=stop % 2 == 0)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_goes_on_bit_for_bit(tmp_path, scheduler):
    check(tmp_path, "AdamW", scheduler, stop=4, into_stepped=True)


@pytest.mark.parametrize("stop", [0, STEPS - 1])
def test_first_and_last_step_are_places_to_stop(tmp_path, stop):
    check(tmp_path, "Adam", "SequentialLR", stop=stop, into_stepped=True)


def test_autocast_and_accumulated_gradients_go_on_bit_for_bit(tmp_path):
    check(tmp_path, "AdamW", "OneCycleLR", stop=5, into_stepped=False, autocast=True, accumulate=3)


@pytest.mark.crash_long
@pytest.mark.parametrize("into_stepped", [False, True])
@pytest.mark.parametrize("stop", [1, 5, STEPS - 1])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_with_every_scheduler(
    tmp_path, optimizer, scheduler, stop, into_stepped
):
    check(tmp_path, optimizer, scheduler, stop=stop, into_stepped=into_stepped)


def test_several_models_with_an_optimizer_each_go_on_bit_for_bit(tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        models = {"gen": nn.Linear(3, 4), "critic": nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5))}
        optimizers = {name: torch.optim.Adam(m.parameters()) for name, m in models.items()}
        schedulers = {name: lrs.StepLR(o, 1) for name, o in optimizers.items()}
        return models, optimizers, schedulers

    def step(models, optimizers, schedulers):
        loss = models["critic"](models["gen"](torch.randn(5, 3))).square().mean()
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for name, optimizer in optimizers.items():
            optimizer.step()
            schedulers[name].step()
        return loss.item().hex()

    whole, again = make(1), make(2)
    with CheckpointManagerV2(tmp_path) as manager:
        manager.update_experiment_hash(whole[0], CONFIG, range(9))
        manager.track(**whole[2])
        losses = [step(*whole)]
        manager.save_model_checkpoint(whole[0], step=1, optimizer=whole[1])
        losses += [step(*whole) for _ in range(3)]
        manager.track(**again[2])
        manager.load_checkpoint(1, model=again[0], optimizer=again[1], load_random=True)
        assert [step(*again) for _ in range(3)] == losses[1:]
    for group in range(3):
        for name in ("gen", "critic"):
            one, other = (objects[group][name].state_dict() for objects in (whole, again))
            assert bits(one) == bits(other)
