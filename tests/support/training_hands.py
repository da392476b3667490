"""What worker processes do with real managers and torch; run by the fork server."""

from __future__ import annotations

import h5py  # noqa: F401 - loaded before the fork, not once in each worker
import torch

from support.fork_server import speak
from support.roots import fast_folder
from support.training import CONFIG, make, train
from weightslab.components import CheckpointManagerV2

torch.set_num_threads(1)  # no pool of threads that a fork would leave behind


def warm_up():
    """Train, save and load once, so that no worker spends a second on late imports."""
    with fast_folder() as folder:
        model, optimizer = make()
        train(model, optimizer)
        manager, _ = open_manager(folder, model)
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        manager.load_latest_checkpoint(model, optimizer=optimizer)


def open_manager(path, model, config=CONFIG):
    """Open a root and its experiment; returns the manager and what came of the hash."""
    manager = CheckpointManagerV2(path)
    return manager, manager.update_experiment_hash(model, config, range(100))


def train_forever(ready, path):
    """Resume where the last one was killed, then train and save until killed."""
    ready()
    model, optimizer = make()
    manager, update = open_manager(path, model)
    found = manager.load_latest_checkpoint(model, optimizer=optimizer)
    step = 0 if found is None else found["step"]
    speak(resumed=step, exp_hash=update.exp_hash)
    while True:
        step += 1
        train(model, optimizer, seed=step)
        manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
        speak(saved=step)


def train_beside_others(ready, path, first_step, num_steps):
    """Open an experiment with others, then save a shared step and steps of one's own."""
    model, optimizer = make()
    train(model, optimizer, seed=first_step)
    ready()
    manager, update = open_manager(path, model)
    for step in (0, *range(first_step, first_step + num_steps)):
        manager.save_model_checkpoint(
            model, step=step, optimizer=optimizer, metadata={"by": first_step}
        )
    return [update.exp_hash, update.is_new]


warm_up()
