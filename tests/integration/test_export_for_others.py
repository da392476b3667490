"""What is exported is loaded by the real libraries: transformers, safetensors, torch."""

import json

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import FormatError
from weightslab.engine.export import hf_folder
from weightslab.engine.repository.catalog import read_manifest

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def tiny_gpt2():
    config = transformers.GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=50, n_positions=16, bos_token_id=1, eos_token_id=1,
        resid_pdrop=0.3,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), transformers.AutoModelForCausalLM


def tiny_bert():
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        vocab_size=30, num_labels=5,
    )  # fmt: skip
    kind = transformers.AutoModelForSequenceClassification
    return transformers.BertForSequenceClassification(config), kind


def tiny_clip():
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": 30, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 16, "image_size": 8, "patch_size": 4}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return transformers.CLIPModel(config), transformers.AutoModel


@pytest.fixture(params=[tiny_gpt2, tiny_bert, tiny_clip])
def saved(request, tmp_path):
    torch.manual_seed(0)
    model, kind = request.param()
    with CheckpointManagerV2(tmp_path / "root") as manager:
        exp_hash = manager.update_experiment_hash(model, {"lr": 0.1}).exp_hash
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        yield manager.root, exp_hash, model, kind


def test_transformers_loads_the_folder_whole_and_in_shards(saved, tmp_path):
    root, exp_hash, model, kind = saved
    root.export(exp_hash, 1, tmp_path / "whole", format="huggingface")
    manifest = read_manifest(root.store, root.get_checkpoint(exp_hash, 1).name)
    hf_folder.write_hf_folder(
        root.store,
        manifest,
        tmp_path / "shards",
        part="model",
        architecture=root.architecture(exp_hash),
        config=None,
        max_shard_bytes=4000,
    )
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 1
    for name in ("whole", "shards"):
        other, told = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        assert type(other) is type(model)
        assert not told["missing_keys"]
        assert not told["unexpected_keys"]
        for key, tensor in model.state_dict().items():
            assert torch.equal(other.state_dict()[key], tensor), key
        assert function_of(other.config.to_dict()) == function_of(model.config.to_dict())


def function_of(config):
    """Return a config without what says nothing about the function."""
    beside = {"architectures", "dtype", "torch_dtype", "_name_or_path", "transformers_version"}
    return {
        key: function_of(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in beside
    }


def test_a_config_that_the_library_does_not_have_is_refused(saved, tmp_path):
    root, exp_hash, _, _ = saved
    document = root.architecture(exp_hash)
    text = json.dumps(document)
    label = document["identity"]["models"][0][1]["modules"][0]["attributes"]["config"]["$config"]
    forged = json.loads(text.replace(f'"{label}"', '"AutoModel"'))
    manifest = read_manifest(root.store, root.get_checkpoint(exp_hash, 1).name)
    with pytest.raises(FormatError, match="has no config 'AutoModel'"):
        hf_folder.write_hf_folder(
            root.store, manifest, tmp_path / "x", part="model", architecture=forged, config=None
        )
    assert not (tmp_path / "x").exists()
