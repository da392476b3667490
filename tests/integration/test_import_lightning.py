"""Checkpoints that the installed Lightning writes come in whole."""

import warnings

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.formats import import_root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training: its folder, the module, and what is in its last file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning")
        module = make_module(lightning)
        folder = tmp_path_factory.mktemp("lightning") / "version_0" / "checkpoints"
        keep = lightning.pytorch.callbacks.ModelCheckpoint(
            dirpath=folder, monitor="loss", save_top_k=-1
        )
        data = torch.utils.data.TensorDataset(torch.arange(24.0).reshape(6, 4))
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, callbacks=[keep],
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    last = max(folder.glob("*.ckpt"))
    return lightning, folder, torch.load(last, weights_only=True), folder.parent / "root"


def make_module(lightning):
    class Module(lightning.LightningModule):
        def __init__(self, hidden=3, lr=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(4, hidden)

        def training_step(self, batch, _):
            loss = self.layer(batch[0]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    torch.manual_seed(0)
    return Module()


@pytest.fixture(scope="module")
def imported(run):
    _, folder, _, root = run
    return import_root(folder, root)


def test_the_files_of_a_run_are_one_experiment_with_ascending_steps(imported):
    assert imported.is_complete
    assert [c.step for c in imported.checkpoints] == [3, 6]
    assert len({c.exp_hash for c in imported.checkpoints}) == 1


def test_weights_optimizer_and_scheduler_go_into_live_objects_bit_for_bit(run, imported):
    lightning, _, saved, root = run
    module = make_module(lightning)
    ((optimizer,), (scheduler,)) = module.configure_optimizers()
    with CheckpointManagerV2(root, read_only=True) as manager:
        manager.track(scheduler=scheduler)
        found = manager.load_checkpoint(
            6, exp_hash=imported.checkpoints[1].exp_hash, model=module, optimizer=optimizer
        )
        config = manager.load_config(imported.checkpoints[1].exp_hash)
    assert (found["step"], found["epoch"]) == (6, 1)
    assert found["metrics"].keys() == {"loss", "best_loss"}
    assert config == {"hidden": 3, "lr": 0.01}
    for key, value in saved["state_dict"].items():
        assert torch.equal(module.state_dict()[key], value)
    live, kept = optimizer.state_dict(), saved["optimizer_states"][0]
    assert live["param_groups"] == kept["param_groups"]
    for number, state in kept["state"].items():
        assert all(torch.equal(live["state"][number][k], v) for k, v in state.items())
    assert scheduler.state_dict() == saved["lr_schedulers"][0]


def test_loops_and_callbacks_are_in_the_metadata(run, imported):
    with CheckpointManagerV2(run[3], read_only=True) as manager:
        found = manager.load_checkpoint(
            3, imported.checkpoints[0].exp_hash, model=make_module(run[0]), load_optimizer=False
        )
    loops = found["metadata"]["lightning"]["loops"]
    assert loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 3
    (callback,) = found["metadata"]["callbacks"].values()
    assert callback["monitor"] == "loss"


def test_a_second_import_adds_nothing(run, imported):
    again = import_root(run[1], run[3])
    assert [c.status for c in again.checkpoints] == ["known", "known"]
