"""Checkpoints that the installed Transformers writes come in whole."""

import random
import warnings

import numpy as np
import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.formats import import_root


@pytest.fixture(scope="module")
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate")
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments  # noqa: F401

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    return transformers


def make_model(transformers):
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20,
            n_embd=8,
            n_layer=1,
            n_head=2,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def make_trainer(transformers, folder):
    data = [{"input_ids": torch.arange(5) + n % 3, "labels": torch.arange(5)} for n in range(8)]
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=4, save_steps=2, logging_steps=1, per_device_train_batch_size=2,
        use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    return transformers.Trainer(
        make_model(transformers), arguments, train_dataset=data, eval_dataset=data[:2]
    )


@pytest.fixture(scope="module")
def run(library, tmp_path_factory):
    """Folder of a short training, and its root."""
    folder = tmp_path_factory.mktemp("trainer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_trainer(library, folder / "out").train()
    return folder / "out", folder / "root"


@pytest.fixture(scope="module")
def imported(run):
    return import_root(*run)


def test_numbered_folders_are_one_experiment_with_ascending_steps(imported):
    assert imported.is_complete
    assert [(c.key, c.step) for c in imported.checkpoints] == [
        ("checkpoint-2", 2),
        ("checkpoint-4", 4),
    ]
    assert len({c.exp_hash for c in imported.checkpoints}) == 1
    assert "training_args.bin: a pickle of classes; --trust" in str(imported)


def test_weights_optimizer_scheduler_and_random_state_are_restored_bit_for_bit(
    library, run, imported, tmp_path
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = make_trainer(library, tmp_path / "other")
        live.create_optimizer_and_scheduler(num_training_steps=4)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        with CheckpointManagerV2(run[1], read_only=True) as manager:
            manager.track(scheduler=live.lr_scheduler)
            found = manager.load_checkpoint(
                4, imported.checkpoints[0].exp_hash, model=live.model, optimizer=live.optimizer,
                load_random=True,
            )  # fmt: skip
            config = manager.load_config(imported.checkpoints[0].exp_hash)
        random_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
    folder = run[0] / "checkpoint-4"
    saved = library.GPT2LMHeadModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in live.model.state_dict().items())
    check_optimizer(live.optimizer.state_dict(), torch.load(folder / "optimizer.pt"))
    assert live.lr_scheduler.state_dict()["last_epoch"] == 4
    assert found["step"] == 4
    assert {"loss", "eval_loss", "learning_rate"} <= set(found["metrics"])
    assert config["n_embd"] == 8
    check_random(random_state, torch.load(folder / "rng_state.pth", weights_only=False))


def check_optimizer(live, saved):
    assert live["state"].keys() == saved["state"].keys()
    for number, state in saved["state"].items():
        assert all(torch.equal(live["state"][number][k], v) for k, v in state.items())
    assert [g["lr"] for g in live["param_groups"]] == [g["lr"] for g in saved["param_groups"]]


def check_random(live, saved):
    assert live[0] == saved["python"]
    assert live[1][2] == saved["numpy"][2]
    assert np.array_equal(live[1][1], saved["numpy"][1])
    assert torch.equal(live[2], saved["cpu"])


def test_trusted_arguments_come_in_as_metadata(library, run, tmp_path):
    report = import_root(run[0] / "checkpoint-4", tmp_path / "root", trust=True)
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as manager:
        found = manager.load_latest_checkpoint(make_model(library), load_optimizer=False)
    assert report.checkpoints[0].omitted == ()
    assert found["metadata"]["training_args"]["max_steps"] == 4


def test_a_sharded_model_with_tied_weights_goes_into_a_live_one(library, tmp_path):
    model = make_model(library)
    model.save_pretrained(tmp_path / "model", max_shard_size="3KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()

    report = import_root(tmp_path / "model", tmp_path / "root")

    other = library.GPT2LMHeadModel(model.config)
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as manager:
        manager.load_checkpoint(0, report.checkpoints[0].exp_hash, model=other)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    assert report.checkpoints[0].format == "huggingface"
