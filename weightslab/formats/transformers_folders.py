"""`checkpoint-N` folders of the Trainer of Transformers; those of one output folder are one run."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from weightslab.formats.folder_format import FolderFormat
from weightslab.formats.folders import files_in, find_file, step_in_name
from weightslab.formats.huggingface_folders import CONFIGS
from weightslab.formats.parts import Parts, as_config, as_metrics, plain_entries
from weightslab.formats.random_states import pack_states
from weightslab.formats.source import SourceCheckpoint, SourceState
from weightslab.formats.weight_files import WeightFiles, find_weights, has_weights, load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["FORMAT"]

_STATE: Final = "trainer_state.json"
_ARGUMENTS: Final = "training_args.bin"
_OPTIMIZERS: Final = ("optimizer.pt", "optimizer.bin")
_SCHEDULERS: Final = {"scheduler": "scheduler.pt", "scaler": "scaler.pt"}
_RANDOM: Final = re.compile(r"rng_state(_\d+)?\.pth")
_PARTS: Final = (*CONFIGS, _STATE, _ARGUMENTS, *_OPTIMIZERS, *_SCHEDULERS.values())
# what the log says besides metrics, see TrainerState.log_history
_NO_METRICS: Final = frozenset({"step", "epoch"})


def _holds(folder: Path) -> bool:
    return (folder / _STATE).is_file() and has_weights(folder)


def _make(folder: Path, key: str, experiment: str) -> SourceCheckpoint:
    weights = find_weights(folder)
    parts = [path for name in _PARTS if (path := find_file(folder, name)) is not None]
    random = [path for path in files_in(folder) if _RANDOM.fullmatch(path.name)]
    return SourceCheckpoint(
        key=key,
        experiment=experiment,
        files=(*weights.files, *parts, *random),
        load=partial(_load, folder=folder, weights=weights, random=[p.name for p in random]),
        step=step_in_name(folder.name),
    )


def _load(reader: Reader, *, folder: Path, weights: WeightFiles, random: list[str]) -> SourceState:
    tensors, extra = load_weights(reader, weights)
    parts = Parts(reader, folder)
    state = parts.json(_STATE) or {}
    step = state.get("global_step")
    configs = [found for name in CONFIGS if (found := parts.json(name)) is not None]
    optimizers = [found for name in _OPTIMIZERS if (found := parts.pickle(name)) is not None]
    history = state.pop("log_history", None)
    epoch = as_metrics(state).get("epoch", -1.0)
    return SourceState(
        models={"": tensors},
        extra={"": extra},
        optimizers={"optimizer": optimizers[0]} if optimizers else {},
        schedulers={
            name: found
            for name, file in _SCHEDULERS.items()
            if (found := parts.pickle(file)) is not None
        },
        step=step if type(step) is int and step >= 0 else None,
        # a fraction, as the Trainer counts: the epoch that it is in is the whole part
        epoch=int(epoch) if 0 <= epoch < 2**53 else None,
        metrics=_metrics(history, step),
        metadata={
            "trainer_state": plain_entries(state, parts.omitted, what=_STATE),
            **_arguments(reader, parts, folder),
        },
        config=as_config(configs[0] if configs else None, parts.omitted, what=CONFIGS[0]),
        random=pack_states(_random(parts, random), parts.omitted),
        world_size=max(1, len(random)),
        omitted=tuple(parts.omitted),
        damaged=tuple(parts.damaged),
    )


def _metrics(history: Any, step: Any) -> dict[str, float]:
    """Return what was logged at this step; a later line of it goes before an earlier one."""
    found: dict[str, float] = {}
    for entry in history if isinstance(history, list) else ():
        if isinstance(entry, dict) and entry.get("step") == step:
            found |= {k: v for k, v in as_metrics(entry).items() if k not in _NO_METRICS}
    return found


def _random(parts: Parts, names: list[str]) -> dict[str, Any]:
    """Return the random state of the first process."""
    found = parts.pickle(names[0]) if names else None
    if not isinstance(found, dict):
        return {}
    cuda = found.get("cuda")
    states = {"python": found.get("python"), "numpy": found.get("numpy"), "torch": found.get("cpu")}
    if len(names) > 1:
        parts.omitted.append(f"{', '.join(names[1:4])}: random states of other processes")
    if cuda is not None:
        states["cuda"] = list(cuda) if isinstance(cuda, (list, tuple)) else [cuda]
    return states


def _arguments(reader: Reader, parts: Parts, folder: Path) -> dict[str, Any]:
    """Return the arguments of the training: an object of a class, so only for who trusts it."""
    if find_file(folder, _ARGUMENTS) is None:
        return {}
    if not reader.trust:
        parts.omitted.append(f"{_ARGUMENTS}: a pickle of classes; --trust (trust=True) runs it")
        return {}
    found = parts.pickle(_ARGUMENTS)
    to_dict = getattr(found, "to_dict", None)
    if not callable(to_dict):
        return {}
    return {"training_args": plain_entries(to_dict(), parts.omitted, what=_ARGUMENTS)}


FORMAT: Final = FolderFormat(name="transformers", holds=_holds, make=_make)
