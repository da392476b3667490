"""State of optimizers moved: per parameter, by the name that it had, sliced as its values were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weightslab.engine.errors import StateMismatchError
from weightslab.engine.training.plan import check_class, class_name
from weightslab.engine.training.state import plan_optimizer_restore
from weightslab.engine.transplanting.report import OptimizerMoves

if TYPE_CHECKING:
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.training.state import RestorePlan

__all__ = ["Source", "plan_optimizers"]


class Source(NamedTuple):
    """What goes into a live parameter: the names of a saved tensor, and its value."""

    names: list[str]
    value: torch.Tensor


Sources = Mapping[int, Source]


def plan_optimizers(
    manifest: Manifest,
    training: Mapping[str, Any] | None,
    optimizer: Any,
    sources: Sources,
    names: Mapping[int, str],
) -> dict[str, tuple[RestorePlan, OptimizerMoves]]:
    """Plan what each optimizer gets; nothing is changed.

    Args:
        manifest: the checkpoint.
        training: its training state; None if it has none, or nothing of it is wanted.
        optimizer: optimizer, dict of name -> optimizer, or None.
        sources: id of a live parameter -> what goes into it.
        names: id of a live parameter -> its name.
    Raises: StateMismatchError: no saved state, other names, another class.
    """
    if optimizer is None:
        return {}
    saved = (training or {}).get("optimizer", {})
    live = dict(optimizer) if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
    if len(saved) == len(live) == 1:
        pairs = [(name, item, next(iter(saved.values()))) for name, item in live.items()]
    elif saved and not set(live) - set(saved):
        pairs = [(name, item, saved[name]) for name, item in live.items()]
    else:
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds the optimizers "
            f"{', '.join(sorted(saved)) or '(none)'}, not {', '.join(sorted(live))}",
            missing=sorted(set(live) - set(saved)),
            hint="leave optimizer= out to move the weights alone",
        )
    return {name: _plan_one(item, state, sources, names) for name, item, state in pairs}


def _plan_one(
    optimizer: Any, saved: Mapping[str, Any], sources: Sources, names: Mapping[int, str]
) -> tuple[RestorePlan, OptimizerMoves]:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"an optimizer of torch is needed, not {class_name(optimizer)}")
    check_class(saved.get("class"), class_name(optimizer), hint="leave optimizer= out")
    try:
        entries = _by_name(saved)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StateMismatchError("the saved state of the optimizer is not in order") from error
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = [i for group in state["param_groups"] for i in group["params"]]
    given: dict[Any, Any] = dict(state["state"])
    told: dict[str, list[str]] = {"moved": [], "sliced": [], "fresh": []}
    used, exact = set(), True
    for index, parameter in zip(order, parameters, strict=True):
        shown = names.get(id(parameter), f"parameter {index}")
        source = sources.get(id(parameter))
        name = None if source is None else next((n for n in source.names if n in entries), None)
        if source is None or name is None:
            told["fresh"].append(shown)
            continue
        used.add(name)
        exact = exact and source.value.dtype == parameter.dtype
        given[index] = {k: _fitted(v, source.value, parameter) for k, v in entries[name].items()}
        told["moved" if source.value.shape == parameter.shape else "sliced"].append(shown)
    nameless = [[None] * len(group["params"]) for group in state["param_groups"]]
    tree = {"class": saved["class"], "names": nameless, "state": {**state, "state": given}}
    moves = OptimizerMoves(
        moved=tuple(told["moved"]),
        sliced=tuple(told["sliced"]),
        fresh=tuple(told["fresh"]),
        unused=tuple(name for name in entries if name not in used),
    )
    return plan_optimizer_restore(optimizer, tree, exact=exact), moves


def _by_name(saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return name of a parameter -> its saved state; names that several parameters have are no names."""
    groups = saved["state"]["param_groups"]
    entries = saved["state"]["state"]
    named = [
        (name, index)
        for names, group in zip(saved["names"], groups, strict=True)
        for name, index in zip(names, group["params"], strict=True)
        if name is not None
    ]
    counts = Counter(name for name, _ in named)
    return {name: dict(entries[i]) for name, i in named if counts[name] == 1 and i in entries}


def _fitted(value: Any, saved: torch.Tensor, parameter: torch.Tensor) -> Any:
    """Return a part of the state as the parameter needs it: sliced, and padded with zeros."""
    if not isinstance(value, torch.Tensor) or value.shape != saved.shape or not value.ndim:
        return value
    if value.shape == parameter.shape:
        return value
    fitted = torch.zeros(parameter.shape, dtype=value.dtype, device=value.device)
    corner = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, parameter.shape, strict=True))
    fitted[corner].copy_(value[corner])
    return fitted
