"""Folders of `Accelerator.save_state`."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from weightslab.formats.folder_format import FolderFormat
from weightslab.formats.folders import files_in, step_in_name
from weightslab.formats.parts import Parts, as_metrics, plain_entries
from weightslab.formats.random_states import pack_states
from weightslab.formats.source import SourceCheckpoint, SourceState
from weightslab.formats.weight_files import WeightFiles, find_weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["FORMAT", "counted_steps"]

_RANDOM: Final = re.compile(r"random_states_(\d+)\.pkl")
_MODEL: Final = re.compile(r"(?:model|pytorch_model)(_\d+)?\.(?:safetensors|bin)(?:\.index\.json)?")
_STATEFUL: Final = re.compile(
    r"(?:optimizer|scheduler|sampler|dl_state_dict)(?:_\d+)?\.bin|custom_checkpoint_\d+\.pkl|scaler\.pt"
)
_OWN_NUMBER: Final = re.compile(r"checkpoint_\d+")  # its own naming counts saves, not steps


def _holds(folder: Path) -> bool:
    names = [path.name for path in folder.iterdir()]
    return any(map(_RANDOM.fullmatch, names)) and any(map(_MODEL.fullmatch, names))


def _make(folder: Path, key: str, experiment: str) -> SourceCheckpoint:
    names = [path.name for path in files_in(folder)]
    suffixes = sorted({found[1] or "" for name in names if (found := _MODEL.fullmatch(name))})
    models = {
        f"model{suffix}" if len(suffixes) > 1 else "": find_weights(
            folder, (f"model{suffix}", f"pytorch_model{suffix}")
        )
        for suffix in suffixes
    }
    parts = [n for n in names if _STATEFUL.fullmatch(n)]
    random = [n for n in names if _RANDOM.fullmatch(n)]
    told = None if _OWN_NUMBER.fullmatch(folder.name) else step_in_name(folder.name)
    return SourceCheckpoint(
        key=key,
        experiment=experiment,
        files=(
            *(file for weights in models.values() for file in weights.files),
            *(folder / name for name in (*parts, *random)),
        ),
        load=partial(
            _load, folder=folder, models=models, names=(parts, random), has_step=told is not None
        ),
        step=told,
        step_is="optimizer steps" if told is not None else "optimizer steps, as its state counts",
    )


def _load(
    reader: Reader,
    *,
    folder: Path,
    models: Mapping[str, WeightFiles],
    names: tuple[list[str], list[str]],
    has_step: bool,
) -> SourceState:
    loaded = {name: load_weights(reader, weights) for name, weights in models.items()}
    parts = Parts(reader, folder)
    optimizers: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name in names[0]:
        # samplers are saved as objects, and so may be what users register
        found = parts.pickle(name, may_hold_classes=name.startswith(("sampler", "dl_")))
        if found is not None:
            stem = name.rpartition(".")[0]
            (optimizers if stem.startswith("optimizer") else others)[stem] = found
    random = parts.pickle(names[1][0])
    if len(names[1]) > 1:
        parts.omitted.append(f"{', '.join(names[1][1:4])}: random states of other processes")
    random = random if isinstance(random, dict) else {}
    plain = {k: v for k, v in random.items() if k == "step"}
    return SourceState(
        models={name: tensors for name, (tensors, _) in loaded.items()},
        extra={name: extra for name, (_, extra) in loaded.items()},
        optimizers=optimizers,
        schedulers=others,
        step=None if has_step else counted_steps(optimizers),
        metadata={"accelerate": plain_entries(plain, parts.omitted)} if plain else {},
        random=pack_states(_random(random), parts.omitted),
        world_size=len(names[1]),
        omitted=tuple(parts.omitted),
        damaged=tuple(parts.damaged),
    )


def _random(found: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    states = {
        "python": found.get("random_state"),
        "numpy": found.get("numpy_random_seed"),
        "torch": found.get("torch_manual_seed"),
    }
    cuda = found.get("torch_cuda_manual_seed")
    if isinstance(cuda, (list, tuple)) and cuda:
        states["cuda"] = list(cuda)
    return states


def counted_steps(optimizers: Mapping[str, Any]) -> int | None:
    """Return the steps that an optimizer has counted (Adam and its kin do); None if none has."""
    found: list[int] = []
    for optimizer in optimizers.values():
        state = optimizer.get("state") if isinstance(optimizer, dict) else None
        for entry in state.values() if isinstance(state, dict) else ():
            step = entry.get("step") if isinstance(entry, dict) else None
            number = as_metrics({"step": step}).get("step", -1)
            if 0 <= number < 2**53 and number == int(number):  # false for NaN
                found.append(int(number))
    return max(found, default=None)


FORMAT: Final = FolderFormat(name="accelerate", holds=_holds, make=_make)
