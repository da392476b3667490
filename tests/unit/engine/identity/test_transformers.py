"""Models of Transformers: one config, described once, without what does not decide the output."""

import copy
import json

import pytest
import torch
import transformers
from torch import nn

from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.explain import diff_models
from weightslab.engine.identity.hfconfig import config_fields, is_hf_config

pytestmark = pytest.mark.slow  # importing a family of models takes a second each
SMALL = {
    "GPT2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 64, "n_positions": 32,
             "bos_token_id": 0, "eos_token_id": 0},
    "Llama": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
              "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 64,
              "max_position_embeddings": 64},
    "ViT": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 8},
    "T5": {"d_model": 16, "d_ff": 16, "num_layers": 1, "d_kv": 4, "num_heads": 4, "vocab_size": 32},
}  # fmt: skip
HEADS = {
    "GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM", "ViT": "ViTForImageClassification",
    "T5": "T5Model",
}  # fmt: skip


def build(family, **changes):
    config = getattr(transformers, f"{family}Config")(**SMALL[family] | changes)
    return getattr(transformers, HEADS[family])(config)


def identity(model):
    return describe_model(model).document["identity"]["models"][0][1]


def digest(model):
    return describe_model(model).digest


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("GPT2", {"activation_function": "relu"}),
        ("GPT2", {"layer_norm_epsilon": 1e-6}),
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True}),
        ("GPT2", {"attn_pdrop": 0.0}),
        ("GPT2", {"tie_word_embeddings": False}),
        ("Llama", {"num_key_value_heads": 2}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ("Llama", {"attention_dropout": 0.2}),
        ("ViT", {"id2label": {0: "a", 1: "b", 2: "c"}}),
        ("T5", {"is_gated_act": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_fields_that_decide_the_output_count(family, change):
    assert digest(build(family)) != digest(build(family, **change))


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("GPT2", {"name_or_path": "/data/x"}),
        ("GPT2", {"use_cache": False}),
        ("GPT2", {"output_hidden_states": True}),
        ("GPT2", {"initializer_range": 0.5}),
        ("GPT2", {"architectures": ["GPT2LMHeadModel"], "dtype": "float32"}),
        ("GPT2", {"transformers_version": "4.0.0"}),
        ("Llama", {"attn_implementation": "eager"}),
        ("ViT", {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_provenance_and_ways_of_running_do_not_count(family, change):
    assert digest(build(family)) == digest(build(family, **change))


def test_the_config_is_described_once_and_the_modules_refer_to_it():
    found = identity(build("GPT2"))
    assert list(found["configs"]) == ["GPT2Config"]
    assert found["configs"]["GPT2Config"] == {
        "vocab_size": 64, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    with_config = [e for e in found["modules"] if "config" in e.get("attributes", {})]
    assert len(with_config) > 3
    assert all(e["attributes"]["config"] == {"$config": "GPT2Config"} for e in with_config)


def test_configs_of_other_content_are_kept_apart():
    configs = identity(build("T5"))["configs"]
    assert sorted(configs) == ["T5Config", "T5Config#2", "T5Config#3"]
    assert [name for name in configs if configs[name].get("is_decoder")] == ["T5Config#3"]


def test_a_copied_config_is_the_same_config():
    model = build("GPT2")
    before = digest(model)
    for module in model.modules():
        if "config" in vars(module):
            module.config = copy.deepcopy(module.config)
    assert digest(model) == before


def test_saving_and_loading_keeps_the_digest(tmp_path):
    model = build("GPT2")
    before = digest(model)
    model.save_pretrained(tmp_path)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert digest(loaded) == digest(model) == before


def test_running_and_training_keep_the_digest():
    model = build("Llama")
    before = digest(model)
    model.activation_checkpointing_enable()
    model(torch.zeros(1, 16, dtype=torch.long)).logits.sum().backward()
    assert digest(model) == before


def test_a_model_on_the_meta_device_has_the_digest_of_a_real_one():
    with torch.device("meta"):
        model = build("Llama")
    assert digest(model) == digest(build("Llama"))
    assert describe_model(model).weak == ()


class Own(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.config = body, body.config

    def forward(self, x):
        return self.body(x).logits * (2 if self.config.use_cache else 1)


def test_a_field_that_user_code_reads_counts():
    assert digest(Own(build("GPT2"))) != digest(Own(build("GPT2", use_cache=False)))


def test_defaults_of_generate_in_old_configs_do_not_count():
    config = transformers.GPT2Config(**SMALL["GPT2"])
    config.top_k, config.num_beams, config.my_own = 50, 4, 7
    found = config_fields(config, ())
    assert "top_k" not in found
    assert "num_beams" not in found
    assert found["my_own"] == 7


def test_only_configs_of_transformers_are_configs():
    assert is_hf_config(transformers.GPT2Config)
    assert not is_hf_config(dict)


def test_the_document_reads_back():
    found = describe_model(build("T5"))
    stored = json.loads(json.dumps(found.document, allow_nan=False))
    assert stored["identity"] == found.document["identity"]
    assert found.document["versions"]["transformers"] == transformers.__version__


def test_a_changed_field_of_the_config_is_told_once():
    one = describe_model(build("GPT2")).document
    other = describe_model(build("GPT2", scale_attn_by_inverse_layer_idx=True)).document
    assert [change.text for change in diff_models(one, other)] == [
        "configs.GPT2Config.scale_attn_by_inverse_layer_idx added: True"
    ]
