"""A manager in an empty root, and a ledger that forgets."""

from types import SimpleNamespace

import pytest
from support.training import CONFIG, make

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2


@pytest.fixture(autouse=True)
def empty_ledger():
    ledgers.clear_all()
    yield
    ledgers.clear_all()


@pytest.fixture
def manager(tmp_path):
    with CheckpointManagerV2(tmp_path / "root") as opened:
        yield opened


@pytest.fixture
def run(manager):
    """A manager whose current experiment is that of a small model."""
    model, optimizer = make()
    update = manager.update_experiment_hash(model, CONFIG, range(100))
    folder = manager.root.path / "checkpoints" / update.exp_hash
    return SimpleNamespace(
        manager=manager,
        model=model,
        optimizer=optimizer,
        exp_hash=update.exp_hash,
        folder=folder,
        save=lambda step, **more: manager.save_model_checkpoint(
            model, step=step, optimizer=optimizer, **more
        ),
        weights=lambda step, ending=".safetensors": (
            folder / "model" / f"{update.exp_hash}_step_{step:06d}{ending}"
        ),
    )
