"""Tracked objects: whatever else belongs to a training, each captured and checked as what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import DataLoader, Sampler

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.training.generators import (
    capture_generator,
    is_generator,
    plan_generator_restore,
)
from weightslab.engine.training.models import capture_model, plan_model_restore
from weightslab.engine.training.optimizers import capture_optimizer, plan_optimizer_restore
from weightslab.engine.training.plan import class_name
from weightslab.engine.training.stateful import (
    capture_stateful,
    is_stateful,
    plan_stateful_restore,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightslab.engine.training.plan import RestorePlan

__all__ = [
    "capture_tracked",
    "is_data_position",
    "may_refuse",
    "order_of",
    "plan_tracked_restore",
    "require_trackable",
]

_GENERATOR: Final = "generator"
_MODULE: Final = "module"
_OPTIMIZER: Final = "optimizer"
_STATEFUL: Final = "stateful"
_ORDER: Final = (_STATEFUL, _MODULE, _OPTIMIZER, _GENERATOR)


def require_trackable(name: str, item: object) -> None:
    """Raise unless the state of `item` can be saved and restored; nothing of it is read.

    Raises: TypeError naming it.
    """
    if not (is_generator(item) or is_stateful(item)):
        raise TypeError(
            f"{name} is a {class_name(item)}, which has no state_dict and load_state_dict and is no "
            "random generator: it cannot be saved and restored"
        )


def capture_tracked(
    items: Mapping[str, Any], names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return name -> state tree of tracked objects; their tensors are the live ones.

    Args:
        items: name -> module, optimizer, random generator, or anything with `state_dict`.
        names: id of parameter -> name, for optimizers.
    Raises: NotStorableError naming the object.
    """
    found = {}
    for name, item in items.items():
        try:
            found[name] = _capture(item, names or {})
        except NotStorableError as error:  # noqa: PERF203 - a handful of objects
            raise NotStorableError(f"{name}: {error}", hint=error.hint) from error
    return found


def _capture(item: Any, names: Mapping[int, str]) -> dict[str, Any]:
    kind = _kind_of(item)
    if kind == _GENERATOR:
        return {"kind": kind, **capture_generator(item)}
    if kind == _OPTIMIZER:
        return {"kind": kind, **capture_optimizer(item, names)}
    if kind == _STATEFUL:
        return {"kind": kind, **capture_stateful(item)}
    state = capture_model(item)
    return {
        "kind": kind,
        "class": class_name(item),
        "tensors": state.tensors,
        "extra": state.extra,
        "wrapper": state.wrapper_state,
    }


def plan_tracked_restore(
    name: str,
    item: Any,
    saved: Any,
    *,
    names: Mapping[int, str] | None = None,
    cast: bool = False,
) -> RestorePlan:
    """Check that the saved state of one tracked object fits `item`; nothing is changed.

    Args:
        name: its name, for messages.
        item: the live object.
        saved: what `capture_tracked` returned under this name.
        names: id of parameter -> name, for optimizers.
        cast: convert tensors of modules to another dtype, where torch calls that safe.
    Raises: StateMismatchError that begins with the name.
    """
    try:
        return _plan(item, saved, names or {}, cast=cast)
    except StateMismatchError as error:
        raise StateMismatchError(
            f"{name}: {error}",
            missing=[f"{name}/{entry}" for entry in error.missing],
            unexpected=[f"{name}/{entry}" for entry in error.unexpected],
            shape_changes={f"{name}/{k}": v for k, v in error.shape_changes.items()},
        ) from error


def _plan(item: Any, saved: Any, names: Mapping[int, str], *, cast: bool) -> RestorePlan:
    kind = _kind_of(item)
    if not isinstance(saved, dict) or saved.get("kind") != kind:
        was = saved.get("class") if isinstance(saved, dict) else type(saved).__name__
        raise StateMismatchError(
            f"the checkpoint holds the state of {was}, not of {class_name(item)}",
            hint="track the object that was saved",
        )
    if kind == _GENERATOR:
        return plan_generator_restore(item, saved)
    if kind == _OPTIMIZER:
        return plan_optimizer_restore(item, saved, names)
    if kind == _STATEFUL:
        return plan_stateful_restore(item, saved)
    if not all(isinstance(saved.get(key), dict) for key in ("tensors", "extra", "wrapper")):
        raise StateMismatchError(f"the saved state of {class_name(item)} is not in order")
    return plan_model_restore(
        item,
        saved["tensors"],
        saved["extra"],
        aliases={},
        wrapper_state=saved["wrapper"],
        cast=cast,
    )


def _kind_of(item: Any) -> str:
    if is_generator(item):
        return _GENERATOR
    if isinstance(item, torch.nn.Module):
        return _MODULE
    return _OPTIMIZER if isinstance(item, torch.optim.Optimizer) else _STATEFUL


def order_of(item: Any) -> int:
    """Return when `item` is restored: code of users first, as it may still refuse; generators last,
    as that code may draw from them.
    """
    return _ORDER.index(_kind_of(item))


def may_refuse(item: Any) -> bool:
    """Tell whether only the `load_state_dict` of `item` itself knows if a state fits."""
    return _kind_of(item) == _STATEFUL


def is_data_position(item: Any) -> bool:
    """Tell whether `item` is a sampler or data loader: each process has its share of the data."""
    return isinstance(item, (Sampler, DataLoader))
