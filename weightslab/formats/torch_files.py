"""Plain files of torch.save: a state dict, or a dictionary with one under a usual name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.pickles import load_pickle
from weightslab.formats.source import Source, SourceCheckpoint, SourceExperiment, SourceState

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["FORMAT", "TorchFiles", "split_state"]

_ENDINGS: Final = (".pt", ".pth")
_MODELS: Final = ("model_state_dict", "state_dict", "model", "net", "module", "weights")
_OPTIMIZERS: Final = ("optimizer_state_dict", "optimizer", "optim", "optimizer_states")
_SCHEDULERS: Final = (
    "scheduler_state_dict",
    "scheduler",
    "lr_scheduler",
    "lr_scheduler_state_dict",
)
_STEPS: Final = ("step", "global_step", "steps", "num_steps")
_STEP_IN_NAME: Final = re.compile(r"step[-_=]?(\d{1,18})", re.IGNORECASE)


class TorchFiles:
    """One file, one experiment: nothing says which of several belong together."""

    name = "torch"

    def recognises(self, path: Path) -> bool:
        """Tell by the ending."""
        return path.suffix in _ENDINGS and path.is_file()

    def open(self, path: Path) -> Source:
        """Say what is there."""
        step = _STEP_IN_NAME.search(path.stem)
        return Source(
            format=self.name,
            path=path,
            experiments=[SourceExperiment(key=path.name, name=path.stem)],
            checkpoints=[
                SourceCheckpoint(
                    key=path.name,
                    experiment=path.name,
                    files=(path,),
                    load=lambda reader: _load(reader, path),
                    step=int(step[1]) if step else None,
                )
            ],
        )


def _load(reader: Reader, path: Path) -> SourceState:
    return split_state(load_pickle(reader.hold(path), trust=reader.trust), path.name)


def split_state(found: Any, name: str) -> SourceState:
    """Take a dictionary apart: model, optimizers, schedulers, step, epoch, metrics, the rest.

    Raises: FormatError if there is no model in it.
    """
    if not isinstance(found, Mapping):
        raise FormatError(f"{name} holds a {type(found).__name__}, not a state dict")
    if _is_state_dict(found):
        tensors, extra = _tensors_and_rest(found)
        return SourceState(models={"": tensors}, extra={"": extra})
    model_key = next((k for k in _MODELS if _is_state_dict(found.get(k))), None)
    if model_key is None:
        raise FormatError(
            f"{name} has no state dict under a known name",
            hint=f"it has {', '.join(map(str, list(found)[:8]))}; known are {', '.join(_MODELS)}",
        )
    tensors, extra = _tensors_and_rest(found[model_key])
    taken = {model_key}
    optimizers = _under(found, _OPTIMIZERS, "optimizer", taken)
    schedulers = _under(found, _SCHEDULERS, "scheduler", taken)
    step = next((_count(found[k]) for k in _STEPS if _count(found.get(k)) is not None), None)
    plain, metrics, omitted = _rest(found, taken)
    return SourceState(
        models={"": tensors},
        extra={"": extra},
        optimizers=optimizers,
        schedulers=schedulers,
        step=step,
        epoch=_count(found.get("epoch")),
        metrics=metrics,
        metadata=plain,
        omitted=tuple(omitted),
    )


def _is_state_dict(found: Any) -> bool:
    import torch

    return (
        isinstance(found, Mapping)
        and all(isinstance(key, str) for key in found)
        and any(isinstance(value, torch.Tensor) for value in found.values())
    )


def _tensors_and_rest(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    tensors = {k: v.detach() for k, v in found.items() if isinstance(v, torch.Tensor)}
    return tensors, {k: v for k, v in found.items() if k not in tensors}


def _under(
    found: Mapping[str, Any], names: tuple[str, ...], one: str, taken: set[str]
) -> dict[str, Any]:
    """Return the states under the first of these names, one or a list of them."""
    key = next((name for name in names if found.get(name)), None)
    if key is None:
        return {}
    taken.add(key)
    value = found[key]
    if isinstance(value, (list, tuple)):
        return {one if not n else f"{one}_{n + 1}": state for n, state in enumerate(value)}
    return {one: value}


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _rest(
    found: Mapping[str, Any], taken: set[str]
) -> tuple[dict[str, Any], dict[str, float], list[str]]:
    """Return the plain values, the numbers among them, and what has no place."""
    from weightslab.engine.errors import NotStorableError
    from weightslab.engine.jsonform import encode

    plain: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    omitted = []
    for key, value in found.items():
        if key in taken:
            continue
        if type(value) is float:
            metrics[str(key)] = value
        try:
            encode(value, path=str(key))
        except NotStorableError as error:
            omitted.append(f"{error}")
        else:
            plain[str(key)] = value
    return plain, metrics, omitted


FORMAT: Final = TorchFiles()
