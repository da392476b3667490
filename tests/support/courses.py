"""Small trainings of many kinds, which can be stopped anywhere and built anew."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import torch
from torch.utils.data import DataLoader

from support.training import bits
from weightslab.components import CheckpointManagerV2, ResumableSampler, SampleSet

NUM_SAMPLES = 24
DISCARDED = [3, 7, 12, 20]
TABLE = torch.randn(NUM_SAMPLES, 8, generator=torch.Generator().manual_seed(5))

FACTORS = {
    "optimizer": ["SGD", "Adam", "AdamW", "Adafactor", "LBFGS"],
    "scheduler": ["none", "StepLR", "OneCycle", "Plateau", "Sequential"],
    "dropout": [False, True],
    "norm": [False, True],
    "bf16": [False, True],
    "accumulate": [1, 2],
    "stop": ["first", "middle", "last", "boundary"],
    "batch": ["same", "other"],
    "discard": ["never", "before", "at the stop", "after"],
}


class Rows:
    """A data set; each sample is its index and 8 numbers."""

    def __len__(self):
        return NUM_SAMPLES

    def __getitem__(self, index):
        return TABLE[index]


class Course:
    """One training.

    Args:
        case: a value for each of `FACTORS`, and `workers`.
        seed: of weights and random numbers.
        discarded: samples that are out from the beginning.
        batch_size: of the loader.
        accept: for the sampler.
    """

    def __init__(self, case, *, seed=1, discarded=(), batch_size=4, accept=()):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.case = case
        self.model = make_model(case)
        self.optimizer = make_optimizer(case, self.model)
        self.scheduler = make_scheduler(case, self.optimizer)
        self.samples = SampleSet.from_uids(range(NUM_SAMPLES))
        if discarded:
            self.samples.discard(discarded)
        self.accept = accept
        self.num_steps, self.told, self.waiting = 0, [], []
        self.set_batch_size(batch_size)

    def set_batch_size(self, batch_size):
        """Go on with another batch size, in this process."""
        before = getattr(self, "sampler", None)
        self.sampler = ResumableSampler(
            self.samples, batch_size=batch_size, seed=3, accept=self.accept
        )
        if before is not None:
            self.sampler.load_state_dict(before.state_dict())
        self.loader = DataLoader(
            Rows(), batch_sampler=self.sampler, num_workers=self.case.get("workers", 0)
        )

    def manage(self, path, **options):
        """Open a root, and the experiment of this training."""
        manager = CheckpointManagerV2(path, **options)
        self.identify(manager)
        tracked = {"sampler": self.sampler, "scheduler": self.scheduler}
        manager.track(**{name: item for name, item in tracked.items() if item is not None})
        return manager

    def identify(self, manager):
        """Make this training the current experiment."""
        return manager.update_experiment_hash(
            model=self.model, config=self.case, active_data_uids=self.samples
        )

    # ------------------------------------------------------------ the loop
    def steps(self):
        """Yield after each optimizer step, and at the end of each epoch."""
        while True:
            for batch in self.loader:
                self.waiting.append(batch)
                uids = self.sampler.last_batch_uids
                loss = self.take(batch)
                if loss is not None:
                    self.num_steps += 1
                    self.told.append((uids, bits(loss.detach())))
                    yield "step"
            yield "epoch"

    def take(self, batch):
        """Use a batch; returns the loss if an optimizer step was due."""
        is_due = len(self.waiting) == self.case["accumulate"]
        if self.case["optimizer"] == "LBFGS":
            loss = self.optimizer.step(self.closure) if is_due else None
        else:
            loss = self.loss_of(batch)
            loss.backward()
            if is_due:
                self.optimizer.step()
                self.optimizer.zero_grad()
        if not is_due:
            return None
        self.waiting = []
        if self.scheduler is not None:
            self.scheduler.step(*[float(loss.detach())] * (self.case["scheduler"] == "Plateau"))
        return loss

    def closure(self):
        self.optimizer.zero_grad()
        total = 0
        for batch in self.waiting:
            loss = self.loss_of(batch)
            loss.backward()
            total = total + loss.detach()
        return total

    def loss_of(self, batch):
        half = torch.autocast("cpu", dtype=torch.bfloat16)
        with half if self.case["bf16"] else contextlib.nullcontext():
            out = self.model(batch)
        return (out.float() - batch[:, :1]).square().mean() / self.case["accumulate"]

    # ------------------------------------------------------------ stops
    def run_to_the_stop(self, steps):
        """Train until the moment of the case; discard on the way if the case says so."""
        wanted = self.case["stop"]
        for event in steps:
            if self.case["discard"] == "before" and self.num_steps == 1 and event == "step":
                self.samples.discard(DISCARDED)
            epoch, position = self.sampler.epoch, self.sampler.position
            if wanted == "boundary" and event == "epoch":
                return
            if wanted == "last" and event == "step" and (epoch, position) == (1, 0):
                return
            if wanted == "first" and event == "step" and epoch == 1 and position > 0:
                return
            if wanted == "middle" and event == "step" and epoch == 1 and position >= 12:
                return

    def run_on(self, steps, count=8):
        """Train so many optimizer steps more."""
        done = 0
        for event in steps:
            done += event == "step"
            if self.case["discard"] == "after" and done == 2 and event == "step":
                self.samples.discard(DISCARDED)
            if done == count:
                return

    def state(self):
        """Everything that has to be equal in the end, bit for bit."""
        return {
            "model": bits(self.model.state_dict()),
            "optimizer": bits(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else plain(self.scheduler.state_dict()),
            "sampler": {k: v for k, v in self.sampler.state_dict().items() if k != "num_samples"},
            "random": (random.getstate(), bits(torch.get_rng_state())),
        }


def plain(state):
    """Leave out what a scheduler keeps beside its state: functions and schedulers."""
    if isinstance(state, dict):
        return {k: plain(v) for k, v in state.items() if k not in ("anneal_func", "_scale_fn_ref")}
    return [plain(v) for v in state] if isinstance(state, (list, tuple)) else repr(state)


class Normed(torch.nn.Module):
    """Batch norm over two channels, so that a batch of one sample has something to norm."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x.unflatten(1, (2, 3))).flatten(1)


def make_model(case):
    return torch.nn.Sequential(
        torch.nn.Linear(8, 6),
        *[Normed()] * case["norm"],
        torch.nn.Tanh(),
        *[torch.nn.Dropout(0.3)] * case["dropout"],
        torch.nn.Linear(6, 1),
    )


def make_optimizer(case, model):
    parameters, kind = model.parameters(), case["optimizer"]
    if kind == "SGD":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)
    if kind == "LBFGS":
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3, history_size=3)
    return getattr(torch.optim, kind)(parameters, lr=0.02)


def make_scheduler(case, optimizer):
    rules, kind = torch.optim.lr_scheduler, case["scheduler"]
    if kind == "StepLR":
        return rules.StepLR(optimizer, step_size=3, gamma=0.7)
    if kind == "OneCycle":
        momentum = case["optimizer"] in ("SGD", "Adam", "AdamW")
        return rules.OneCycleLR(optimizer, 0.1, total_steps=60, cycle_momentum=momentum)
    if kind == "Plateau":
        return rules.ReduceLROnPlateau(optimizer, patience=0, factor=0.8)
    if kind == "Sequential":
        first = rules.LinearLR(optimizer, total_iters=4)
        return rules.SequentialLR(
            optimizer, [first, rules.ExponentialLR(optimizer, 0.9)], milestones=[7]
        )
    return None
