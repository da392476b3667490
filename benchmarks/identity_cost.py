"""What it costs to take the identity of models, and to notice that nothing changed."""

from __future__ import annotations

import torch

from benchmarks.identity_models import ConvNet, GptDecoder, LlamaDecoder
from benchmarks.save_load import build
from benchmarks.timing import Candidate, interleave, table
from weightslab.engine.identity.architecture import describe_model, outline
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet


def main(*, rounds: int = 9) -> list[str]:
    """Measure and return the tables."""
    model, _ = build("25M")
    config = {f"key{i}": {"value": i / 7, "name": str(i)} for i in range(50)}
    rows = interleave(
        [
            Candidate("describe the model", lambda _: describe_model(model)),
            Candidate("outline of the model (at every save)", lambda _: outline(model)),
            Candidate("describe a config of 100 keys", lambda _: describe_config(config)),
            Candidate("100,000 sample UIDs", lambda _: SampleSet.from_uids(range(100_000)).digest),
        ],
        rounds=rounds,
    )
    return [
        table("Identity of the 25M-parameter model", rows, relative_to="describe the model"),
        architectures(rounds=rounds),
    ]


def architectures(*, rounds: int) -> str:
    """Measure `describe_model` after the first call; all models but the CNN on the meta device."""
    import transformers

    with torch.device("meta"):
        models = {
            "GPT-2 small, user code, 151 modules": GptDecoder(),
            "GPT-2 small, Transformers, 164 modules": transformers.GPT2LMHeadModel(
                transformers.GPT2Config()
            ),
            "LLaMA of 32 layers, user code, 421 modules": LlamaDecoder(),
            "LLaMA of 32 layers, Transformers, 423 modules": transformers.LlamaForCausalLM(
                transformers.LlamaConfig(num_hidden_layers=32)
            ),
        }
    models["CNN of 200 modules, user code"] = ConvNet()
    candidates = [
        Candidate(name, lambda _, one=model: describe_model(one)) for name, model in models.items()
    ]
    rows = interleave(candidates, rounds=rounds)
    return table(
        "Describing architectures again", rows, relative_to="CNN of 200 modules, user code"
    )
