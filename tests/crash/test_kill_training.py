"""kill -9 in the middle of training: it goes on, bit for bit, as if nothing had happened."""

import random

import pytest
import torch
from support.forking import ForkServer
from support.roots import fast_folder, strangers
from support.training import CONFIG, make, state_of, train

from weightslab.components import CheckpointManagerV2

NUM_KILLS = 12


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.training_hands") as opened:
        yield opened


@pytest.fixture
def one_thread():
    """Compute as the workers do: more threads add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kill_once(server, chance, path):
    """Train until killed at some moment; returns the step it resumed from and those it saved."""
    (pid,) = server.fork(("train_forever", path))
    server.release()
    if chance.random() < 0.8:
        server.listen_for(pid, "saved", chance.randint(1, 5))
    server.listen(chance.uniform(0, 0.04))
    assert server.kill(pid) == -9
    return server.heard(pid, "resumed"), server.heard(pid, "saved")


@pytest.mark.slow
def test_training_that_is_killed_again_and_again_ends_like_one_that_was_not(server, one_thread):
    chance, reached = random.Random(11), 0
    with fast_folder() as folder:
        path = str(folder / "root")
        for _ in range(NUM_KILLS):
            resumed, saved = kill_once(server, chance, path)
            assert all(reached <= step <= reached + 1 for step in resumed)
            reached = max([reached, *resumed, *saved])
        assert reached >= NUM_KILLS // 2
        check_end(path, reached)


def check_end(path, reached):
    model, optimizer = make(seed=3)
    with CheckpointManagerV2(path) as manager:
        _, is_new = manager.update_experiment_hash(model, CONFIG, range(100))
        assert not is_new
        found = manager.load_latest_checkpoint(model, optimizer=optimizer)
        assert found["step"] in (reached, reached + 1)
        assert found["skipped"] == []
        assert manager.root.verify() == []
        assert [e.name.step for e in manager.root.checkpoints()] == [*range(1, found["step"] + 1)]
        assert strangers(manager.root) == []
    assert state_of(model, optimizer) == state_of(*trained_in_one_go(found["step"]))


def trained_in_one_go(num_steps):
    model, optimizer = make()
    for step in range(1, num_steps + 1):
        train(model, optimizer, seed=step)
    return model, optimizer
