"""Folders that the installed Accelerate writes come in whole."""

import warnings

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.formats import import_root


class Counter:
    """Something with a state, as users register it."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def make():
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two saves of a short training: their folder, and the state at the second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerate = pytest.importorskip("accelerate")
        folder = tmp_path_factory.mktemp("accelerate")
        accelerator = accelerate.Accelerator(
            cpu=True,
            project_config=accelerate.utils.ProjectConfiguration(
                project_dir=str(folder), automatic_checkpoint_naming=True
            ),
        )
        torch.manual_seed(0)
        model, optimizer, scheduler = accelerator.prepare(*make())
        counter = Counter()
        accelerator.register_for_checkpointing(counter)
        for _ in range(2):
            for _ in range(2):
                accelerator.backward(model(torch.randn(3, 4)).square().sum())
                optimizer.step()
                scheduler.step()
                counter.count += 1
            accelerator.save_state()
    states = model.state_dict(), optimizer.state_dict(), scheduler.state_dict()
    yield folder / "checkpoints", folder / "root", states
    accelerate.state.AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def imported(run):
    return import_root(run[0], run[1])


def test_saves_are_one_experiment_and_steps_are_those_the_optimizer_counted(imported):
    assert imported.is_complete
    assert [(c.key, c.step) for c in imported.checkpoints] == [
        ("checkpoint_0", 2),
        ("checkpoint_1", 4),
    ]
    assert len({c.exp_hash for c in imported.checkpoints}) == 1


def test_everything_goes_into_live_objects_bit_for_bit(run, imported):
    model, optimizer, scheduler = make()
    counter = Counter()
    with CheckpointManagerV2(run[1], read_only=True) as manager:
        manager.track(scheduler=scheduler, custom_checkpoint_0=counter)
        found = manager.load_checkpoint(
            4, imported.checkpoints[0].exp_hash, model=model, optimizer=optimizer
        )
    weights, kept, schedule = run[2]
    assert found["step"] == 4
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    for number, state in kept["state"].items():
        live = optimizer.state_dict()["state"][number]
        assert all(torch.equal(live[k], v) for k, v in state.items())
    assert scheduler.state_dict() == schedule
    assert counter.count == 4
