"""Hugging Face folders: shards, index, config; tied tensors under each of their names."""

import json

import pytest
import torch
from safetensors.torch import load_file

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import AlreadyExistsError, MissingExtraError, ObjectNotFoundError
from weightslab.engine.export import hf_folder
from weightslab.engine.repository.catalog import read_manifest


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6, bias=False))
    model[1].weight = model[0].weight
    with CheckpointManagerV2(tmp_path_factory.mktemp("hf") / "root") as manager:
        exp_hash = manager.update_experiment_hash(model, {"lr": 0.5, "when": (1, 2)}).exp_hash
        manager.save_model_checkpoint(model, step=1, save_optimizer=False, metrics={"loss": 1.5})
        yield manager.root, exp_hash, model


def test_the_folder_has_weights_config_and_origin(saved, tmp_path):
    root, exp_hash, model = saved
    path = root.export(exp_hash, 1, tmp_path / "out" / "mine", format="huggingface")
    found = load_file(path / "model.safetensors")
    assert {k: v.tolist() for k, v in found.items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    assert json.loads((path / "config.json").read_text()) == {"lr": 0.5, "when": [1, 2]}
    origin = json.loads((path / "weightslab-origin.json").read_text())
    assert (origin["exp_hash"], origin["step"], origin["part"]) == (exp_hash, 1, "model")
    assert origin["manifest"] == root.get_checkpoint(exp_hash, 1).digest
    assert sorted(p.name for p in path.parent.rglob("*")) == [
        "config.json",
        "mine",
        "model.safetensors",
        "weightslab-origin.json",
    ]


def write(saved, target, **more):
    root, exp_hash, _ = saved
    manifest = read_manifest(root.store, root.get_checkpoint(exp_hash, 1).name)
    given = {"part": "model", "architecture": None, "config": None} | more
    hf_folder.write_hf_folder(root.store, manifest, target, **given)


def test_what_is_too_large_goes_into_shards_with_an_index(saved, tmp_path):
    write(saved, tmp_path / "m", max_shard_bytes=150)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 24 + 144 + 144
    assert index["weight_map"] == {
        "0.bias": "model-00001-of-00003.safetensors",
        "0.weight": "model-00002-of-00003.safetensors",
        "1.weight": "model-00003-of-00003.safetensors",
    }
    for key, file in index["weight_map"].items():
        assert list(load_file(tmp_path / "m" / file)) == [key]
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_nothing_is_replaced_and_an_error_leaves_nothing(saved, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    with pytest.raises(AlreadyExistsError, match="nothing is replaced"):
        write(saved, tmp_path / "mine")
    with pytest.raises(ObjectNotFoundError):
        write(saved, tmp_path / "x", part="model.b")
    with pytest.raises(ValueError, match="holds a model"):
        write(saved, tmp_path / "x", part="training")
    with pytest.raises(ValueError, match="at least 1"):
        write(saved, tmp_path / "x", max_shard_bytes=0)
    monkeypatch.setattr(hf_folder, "_origin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(saved, tmp_path / "x")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def described(label="BertConfig", **fields):
    model = {
        "modules": [
            {
                "path": "",
                "class": "transformers.models.bert.modeling_bert.BertModel",
                "attributes": {"config": {"$config": label}},
            }
        ],
        "configs": {label: fields},
    }
    return {"identity": {"models": [["", model]]}}


def test_without_transformers_its_models_are_refused_in_words(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="written by Transformers"):
        write(saved, tmp_path / "x", architecture=described())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("document", [{}, {"identity": {"models": []}}, {"identity": 1}])
def test_other_descriptions_leave_the_config_of_the_experiment(saved, tmp_path, document):
    write(saved, tmp_path / "x", architecture=document, config={"lr": 1})
    assert json.loads((tmp_path / "x" / "config.json").read_text()) == {"lr": 1}
