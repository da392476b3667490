"""Models of transformers: options of their configs count, provenance does not."""

import pytest
import torch
from support.identity import case_name, differ, equal

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SMALL = {
    "GPT2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 64, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2},
    "Llama": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 64, "max_position_embeddings": 64},
    "Bert": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 64, "max_position_embeddings": 64},
    "ViT": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "image_size": 32, "patch_size": 8},
}  # fmt: skip
HEADS = {
    "GPT2": "GPT2LMHeadModel",
    "Llama": "LlamaForCausalLM",
    "Bert": "BertModel",
    "ViT": "ViTModel",
}
OPTIONS = [
    ("GPT2", {"n_layer": 3}), ("GPT2", {"n_head": 8}), ("GPT2", {"activation_function": "relu"}),
    ("GPT2", {"layer_norm_epsilon": 1e-6}), ("GPT2", {"scale_attn_by_inverse_layer_idx": True}),
    ("GPT2", {"attn_pdrop": 0.0}), ("GPT2", {"tie_word_embeddings": False}),
    ("Llama", {"num_key_value_heads": 2}), ("Llama", {"rms_norm_eps": 1e-5}),
    ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    ("Llama", {"hidden_act": "gelu"}), ("Llama", {"attention_bias": True}),
    ("Llama", {"attention_dropout": 0.2}), ("Bert", {"hidden_act": "relu"}),
    ("Bert", {"num_attention_heads": 8}), ("Bert", {"layer_norm_eps": 1e-6}),
    ("ViT", {"patch_size": 4}), ("ViT", {"qkv_bias": False}),
]  # fmt: skip
PROVENANCE = [
    ("Bert", {"name_or_path": "/data/x"}), ("ViT", {"id2label": {0: "cat", 1: "dog"}}),
]  # fmt: skip


def _model(family, **options):
    def build():
        config = getattr(transformers, f"{family}Config")(**{**SMALL[family], **options})
        return getattr(transformers, HEADS[family])(config)

    return build


def _seeded(family, seed):
    def build():
        torch.manual_seed(seed)
        return _model(family)()

    return build


def _ran():
    model = _model("Llama")()
    model(torch.zeros(1, 16, dtype=torch.long)).logits.sum().backward()
    return model


CASES = [
    *(differ(f"{f} {next(iter(o))}", _model(f), _model(f, **o)) for f, o in OPTIONS),
    *(equal(f"{f} {next(iter(o))}", _model(f), _model(f, **o)) for f, o in PROVENANCE),
    equal("seed", _seeded("GPT2", 1), _seeded("GPT2", 2)),
    equal("attention kernel", _model("Llama", attn_implementation="eager"), _model("Llama", attn_implementation="sdpa")),
    equal("after a run", _model("Llama"), _ran),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_transformers(case):
    case.check()


def test_saved_and_loaded_pretrained_is_the_same_architecture(tmp_path):
    from weightslab.engine.identity.architecture import describe_model

    model = _model("GPT2")()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert describe_model(loaded).digest == describe_model(model).digest
