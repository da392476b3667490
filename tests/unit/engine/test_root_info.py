"""What a root tells about an experiment."""

import torch

from weightslab.components import CheckpointManagerV2


def test_info_names_one_file_for_each_model_of_a_checkpoint(tmp_path):
    manager = CheckpointManagerV2(tmp_path)
    models = {"gen": torch.nn.Linear(2, 2), "disc": torch.nn.Linear(2, 1)}
    exp_hash = manager.update_experiment_hash(model=models).exp_hash
    path = manager.save_model_checkpoint(models, step=1, save_optimizer=False)
    names = manager.root.info(exp_hash)["model_checkpoints"]
    stem = f"{exp_hash}_step_000001"
    assert names == [f"{stem}.model.disc.safetensors", f"{stem}.model.gen.safetensors"]
    assert {p.name for p in path.parent.glob("*.safetensors")} == set(names)
