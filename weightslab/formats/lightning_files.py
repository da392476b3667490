"""`.ckpt` files of Lightning; those of one folder are one run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.folders import files_in, step_in_name
from weightslab.formats.parts import as_config, as_metrics, plain_entries
from weightslab.formats.pickles import load_pickle
from weightslab.formats.source import Source, SourceCheckpoint, SourceExperiment, SourceState
from weightslab.formats.torch_files import split_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["FORMAT", "LightningFiles", "is_lightning", "split_lightning"]

_ENDING: Final = ".ckpt"
_MARK: Final = "pytorch-lightning_version"
_HYPER: Final = ("hyper_parameters", "datamodule_hyper_parameters")
_TAKEN: Final = frozenset({"state_dict", "optimizer_states", "lr_schedulers", "callbacks", *_HYPER})
_SCORES: Final = ("best_model_score", "current_score")  # of ModelCheckpoint
_WAITING: Final = ("best_score",)  # of EarlyStopping


class LightningFiles:
    """A `.ckpt` file, or a folder with such files in it: one experiment, in the order of steps."""

    name = "lightning"

    def recognises(self, path: Path) -> bool:
        """Tell by the ending."""
        return path.suffix == _ENDING if path.is_file() else bool(_checkpoints(path))

    def open(self, path: Path) -> Source:
        """Say what is there."""
        paths = [path] if path.is_file() else _checkpoints(path)
        home = path.parent if path.is_file() else path
        key = _name_of(home)
        checkpoints = [
            SourceCheckpoint(
                key=each.name,
                experiment=key,
                files=(each,),
                load=partial(_load, path=each),
                step=step_in_name(each.stem),
            )
            for each in paths
        ]
        return Source(
            format=self.name,
            path=path,
            experiments=[SourceExperiment(key=key, name=key)],
            # `last.ckpt` is a copy of one of them
            checkpoints=sorted(checkpoints, key=lambda c: (c.step is None, c.step or 0, c.key)),
            claimed=frozenset(paths),
        )


def _checkpoints(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [p for p in files_in(path) if p.suffix == _ENDING and p.is_file() and not p.is_symlink()]


def _name_of(home: Path) -> str:
    """Return `version_0` of `lightning_logs/version_0/checkpoints`."""
    return home.parent.name if home.name == "checkpoints" and home.parent.name else home.name


def _load(reader: Reader, *, path: Path) -> SourceState:
    found = load_pickle(reader.hold(path), trust=reader.trust)
    return (
        split_lightning(found, path.name) if is_lightning(found) else split_state(found, path.name)
    )


def is_lightning(found: Any) -> bool:
    """Tell whether what a file holds was written by Lightning."""
    return isinstance(found, dict) and _MARK in found


def split_lightning(found: Mapping[str, Any], name: str) -> SourceState:
    """Take a checkpoint of Lightning apart.

    Raises: FormatError if there is no model in it.
    """
    import torch

    state = found.get("state_dict")
    if not isinstance(state, dict) or not state:
        raise FormatError(f"{name} has no state_dict")
    omitted: list[str] = []
    tensors = {k: v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}
    epoch, step = (_count(found.get(key)) for key in ("epoch", "global_step"))
    hyper = found.get(_HYPER[0])
    rest = {k: v for k, v in found.items() if k not in _TAKEN}
    if found.get(_HYPER[1]):
        rest["datamodule"] = found[_HYPER[1]]
    return SourceState(
        models={"": tensors},
        extra={"": {k: v for k, v in state.items() if k not in tensors}},
        optimizers=_numbered("optimizer", found.get("optimizer_states")),
        schedulers=_numbered("scheduler", found.get("lr_schedulers")),
        step=step,
        epoch=epoch,
        metrics=_scores(found.get("callbacks")),
        metadata={
            "lightning": plain_entries(rest, omitted),
            "callbacks": _callbacks(found.get("callbacks"), omitted),
        },
        config=as_config(hyper, omitted, what=_HYPER[0]) if hyper else None,
        omitted=tuple(omitted),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _numbered(name: str, states: Any) -> dict[str, Any]:
    """Return `optimizer`, `optimizer_2`, ... -> state."""
    found = states if isinstance(states, (list, tuple)) else []
    return {name if not n else f"{name}_{n + 1}": state for n, state in enumerate(found)}


def _scores(callbacks: Any) -> dict[str, float]:
    """Return what the callbacks watch, by its name: `val_loss` and `best_val_loss`."""
    found: dict[str, float] = {}
    for key, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if not isinstance(state, dict):
            continue
        numbers = as_metrics(state)
        watched = state.get("monitor")
        if isinstance(watched, str):
            best, current = (numbers.get(name) for name in _SCORES)
            found |= {} if current is None else {watched: current}
            found |= {} if best is None else {f"best_{watched}": best}
        elif str(key).startswith("EarlyStopping"):
            found |= {f"EarlyStopping.{k}": numbers[k] for k in _WAITING if k in numbers}
    return found


def _callbacks(callbacks: Any, omitted: list[str]) -> dict[str, Any]:
    """Return what is plain in the state of callbacks; tensors with one number are numbers."""
    plain: dict[str, Any] = {}
    for key, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if not isinstance(state, dict):
            omitted.append(f"callbacks.{key}: a {type(state).__name__}")
            continue
        plain[str(key)] = plain_entries(_without_tensors(state), omitted, what=f"callbacks.{key}")
    return plain


def _without_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_tensors(v) for k, v in value.items()}
    is_one = getattr(value, "numel", None) is not None and value.numel() == 1
    return value.item() if is_one else value


FORMAT: Final = LightningFiles()
