"""The config object of a Transformers model: what of it says which function is computed.

Every module of such a model holds the same object, so it is described once, under the name of its
class, and the modules refer to it. The rule for a field: it counts if it decides what the model
computes from its inputs and weights. Fields left at the default of the class are left out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.library import bare_name, class_dict, class_mro

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["HfConfigs", "config_fields", "is_hf_config"]

# Where a config came from, and what is counted elsewhere: dtypes stand at the tensors, the number of
# labels is counted in place of their names. Never in the identity.
_PROVENANCE: Final = frozenset({
    "transformers_version", "name_or_path", "architectures", "model_type", "auto_map", "dtype",
    "torch_dtype", "label2id", "tokenizer_class", "prefix", "finetuning_task", "commit_hash",
    "task_specific_params", "attn_implementation", "experts_implementation",
})  # fmt: skip
# How the same result is computed or handed over, and how weights are drawn. They change no output
# of the library's code; a user's code may read them, and then they count.
_RUNNING: Final = frozenset({
    "use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits",
    "chunk_size_feed_forward", "gradient_checkpointing", "torchscript", "init_std", "init_range",
    "initializer_range", "initializer_factor", "initializer_cutoff_factor", "_attn_implementation",
})  # fmt: skip
# Defaults of `generate` that releases before 5 kept in every config; a class that declares one of
# them itself means something else by it (`top_k` of a router).
_GENERATION: Final = frozenset({
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "max_new_tokens",
})  # fmt: skip
_SCALARS: Final = (type(None), bool, int, float, str)
_MISSING: Final = object()


def is_hf_config(kind: type) -> bool:
    """Say whether instances of a class are configs of Transformers; imports nothing."""
    home = sys.modules.get("transformers.configuration_utils")
    if home is None:
        return False
    base = vars(home).get("PreTrainedConfig") or vars(home).get("PretrainedConfig")
    return isinstance(base, type) and issubclass(kind, base)


def config_fields(config: Any, read: Collection[str]) -> dict[str, Any]:
    """Return the fields that decide what is computed.

    Args:
        read: attribute names that user code reads; these count even where the library only uses
            them to decide how to run.
    """
    kind = type(config)
    own: dict[str, Any] = object.__getattribute__(config, "__dict__")
    found: dict[str, Any] = {}
    for name, value in own.items():
        if name in _PROVENANCE or (name.startswith("_") and name not in read):
            continue
        if name in _RUNNING and name not in read:
            continue
        default = _class_default(kind, name)
        if name in _GENERATION and default is _MISSING and name not in read:
            continue
        if name == "id2label" and name not in read:
            found["num_labels"] = len(value) if isinstance(value, dict) else 0
        elif not _is_default(value, default):
            found[name] = value
    if found.get("num_labels") == 2:  # noqa: PLR2004  the default of the library
        del found["num_labels"]
    return found


def _class_default(kind: type, name: str) -> Any:
    """Return the default that a config class declares for a field: a dataclass field keeps it."""
    for base in class_mro(kind):
        if name in class_dict(base):
            return class_dict(base)[name]
    return _MISSING


def _is_default(value: Any, default: Any) -> bool:
    kind = type(value)
    return kind is type(default) and kind in _SCALARS and repr(value) == repr(default)


class HfConfigs:
    """The configs met in one model: label -> fields, each content once.

    Two objects of one content are one config: copying a config does not change the model.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, Any]] = {}  # label -> (config, all that may count of it)
        self._labels: dict[int, str] = {}
        self._keep: list[Any] = []  # a label is found by id: the object must live as long

    def label_of(self, config: Any, plain: Callable[[Any, str], Any]) -> str:
        """Return the label of a config.

        Args:
            plain: returns the plain form of a value with this name.
        """
        known = self._labels.get(id(config))
        if known is not None:
            return known
        label = name = bare_name(type(config))
        # which names user code reads is not known yet: compare as if it read all of them
        content = plain(config_fields(config, _RUNNING | _GENERATION), f"config {name}")
        number = 1
        while label in self._found and self._found[label][1] != content:
            number += 1
            label = f"{name}#{number}"
        self._found.setdefault(label, (config, content))
        self._labels[id(config)] = label
        self._keep.append(config)
        return label

    def contents(
        self, plain: Callable[[Any, str], Any], read: Collection[str]
    ) -> dict[str, dict[str, Any]]:
        """Return label -> plain fields that count, given the names that user code reads."""
        return {
            label: plain(config_fields(config, read), f"config {label}")
            for label, (config, _) in sorted(self._found.items())
        }
