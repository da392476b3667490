"""Small folders as trainers write them, without the trainers."""

from __future__ import annotations

import json
import random
import warnings

import numpy as np
import torch
from safetensors.torch import save_file

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


def live():
    """Return a model that takes `WEIGHTS`, an optimizer with moments and a scheduler."""
    model = torch.nn.Sequential()
    model.add_module("layer", torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def trained(steps=2):
    """The same after some steps, with `WEIGHTS` for its weights."""
    model, optimizer, scheduler = live()
    model.load_state_dict(WEIGHTS)
    for _ in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    model.load_state_dict(WEIGHTS)
    return model, optimizer, scheduler


def huggingface(folder, *, weights=WEIGHTS, config=True):
    """Write `model.safetensors` and `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if config:
        (folder / "config.json").write_text(json.dumps({"hidden_size": 3}))
    return folder


def sharded(folder, *, ending="safetensors", **index):
    """Write a shard for each of `WEIGHTS`, and their index; `index` goes over its `weight_map`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "model" if ending == "safetensors" else "pytorch_model"
    places = {}
    for number, (key, tensor) in enumerate(WEIGHTS.items(), start=1):
        places[key] = f"{stem}-0000{number}-of-00002.{ending}"
        if ending == "safetensors":
            save_file({key: tensor}, folder / places[key])
        else:
            torch.save({key: tensor}, folder / places[key])
    document = {"metadata": {"total_size": 32}, "weight_map": places | index}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(document))
    (folder / "config.json").write_text("{}")
    return folder


def trainer(folder, step=2):
    """Write a folder of the Trainer of Transformers."""
    huggingface(folder)
    _, optimizer, scheduler = trained(step)
    log = [
        {"loss": 0.5, "step": step - 1, "epoch": 0.5},
        {"loss": 0.25, "learning_rate": 0.01, "step": step, "epoch": 1.5},
        {"eval_loss": float("nan"), "step": step, "epoch": 1.5},
    ]
    state = {"global_step": step, "epoch": 1.5, "max_steps": 9, "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save(random_states("python", "numpy", "cpu"), folder / "rng_state.pth")
    torch.save({"max_steps": 9}, folder / "training_args.bin")
    return folder


def accelerate(folder, steps=2):
    """Write a folder of `Accelerator.save_state`."""
    huggingface(folder, config=False)
    _, optimizer, scheduler = trained(steps)
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save(scheduler.state_dict(), folder / "scheduler.bin")
    names = ("random_state", "numpy_random_seed", "torch_manual_seed")
    torch.save({"step": 0, **random_states(*names)}, folder / "random_states_0.pkl")
    torch.save({"count": 3}, folder / "custom_checkpoint_0.pkl")
    return folder


def random_states(*names):
    """Return the random states of this process under three names."""
    return dict(
        zip(names, (random.getstate(), np.random.get_state(), torch.get_rng_state()), strict=True)
    )


def lightning(path, step=2, **more):
    """Write a `.ckpt` file of Lightning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, optimizer, scheduler = trained(step)
    state = {
        "epoch": 1,
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": dict(WEIGHTS),
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "monitor": "val_loss",
                "best_model_score": torch.tensor(0.25),
                "current_score": torch.tensor(0.5),
            }
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.01},
    }
    torch.save(state | more, path)
    return path


def distributed(folder, state=None):
    """Write a folder of torch.distributed.checkpoint, of one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as dcp

        model, optimizer, _ = trained()
        whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 2}
        dcp.save(whole if state is None else state, checkpoint_id=folder)
    return folder
