"""State of optimizers: captured, checked against a live one, handed back bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from weightslab.engine.errors import StateMismatchError
from weightslab.engine.training.plan import RestorePlan, check_class, class_name, own_copy
from weightslab.engine.training.stateful import hand_over, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["capture_optimizer", "plan_optimizer_restore"]

# per-parameter state that has the shape of its parameter, in the optimizers of torch.optim
_LIKE_PARAMETER: Final = frozenset(
    {
        "acc_delta",
        "exp_avg",
        "exp_avg_sq",
        "exp_inf",
        "grad_avg",
        "max_exp_avg_sq",
        "momentum_buffer",
        "prev",
        "square_avg",
        "step_size",
        "sum",
    }
)


def capture_optimizer(optimizer: Any, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Return the state of an optimizer as a tree.

    Args:
        optimizer: anything with `state_dict`; torch optimizers are described further.
        names: id of parameter -> name, so that a load can tell parameters that changed places.
    """
    return {
        "class": class_name(optimizer),
        "names": _group_names(optimizer, names or {}),
        "state": optimizer.state_dict(),
    }


def _group_names(optimizer: Any, names: Mapping[int, str]) -> list[list[str | None]]:
    groups = getattr(optimizer, "param_groups", [])
    return [[names.get(id(p)) for p in group.get("params", [])] for group in groups]


def plan_optimizer_restore(
    optimizer: Any,
    saved: Any,
    names: Mapping[int, str] | None = None,
    *,
    exact: bool = True,
) -> RestorePlan:
    """Check that a saved state fits `optimizer`; nothing is changed.

    Args:
        optimizer: the live one.
        saved: what `capture_optimizer` returned.
        names: id of parameter -> name, to notice parameters that changed places.
        exact: the parameters have the dtypes they were saved with, and so the state keeps its own;
            otherwise torch converts it to the dtype of the parameters.
    Raises: StateMismatchError naming class, groups or parameters that differ.
    """
    what = class_name(optimizer)
    state = state_of(saved, {"class", "names", "state"}, what)
    check_class(saved["class"], what, hint="pass load_optimizer=False to load the weights alone")
    if isinstance(optimizer, torch.optim.Optimizer):
        try:
            _check_groups(optimizer, state)
            _check_names(_group_names(optimizer, names or {}), saved["names"])
            _check_shapes(optimizer, state)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise StateMismatchError(f"the saved state of {what} is not in order") from error
        if _keeps_what_it_gets(optimizer):
            return _fill(optimizer, state, exact=exact)
    return hand_over(optimizer, state)


def _keeps_what_it_gets(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether loading is torch's own: it takes the tensors of a state as they are."""
    own = type(optimizer).load_state_dict
    return (
        str(getattr(own, "__module__", "")).startswith("torch.optim.")
        and "load_state_dict" not in vars(optimizer)
        and not getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None)
    )


def _fill(optimizer: torch.optim.Optimizer, state: dict[str, Any], *, exact: bool) -> RestorePlan:
    """Plan to copy into the state tensors that the optimizer has; only others take memory."""
    places = _live_places(optimizer, state)
    moved = _moved_settings(optimizer, state)
    mine = own_copy(state, moved | {key: live for key, (live, _) in places.items()})

    def finish() -> None:
        optimizer.load_state_dict(mine)
        _put_back(optimizer, mine, exact=exact)

    return RestorePlan(class_name(optimizer), finish, pairs=tuple(places.values()))


def _put_back(optimizer: torch.optim.Optimizer, state: dict[str, Any], *, exact: bool) -> None:
    """Put tensors back that torch converted to the dtype of their parameter (`mu_product` of NAdam
    is float32 beside bfloat16 parameters): bits would be lost.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = [i for group in state["param_groups"] for i in group["params"]]
    for index, parameter in zip(order, parameters, strict=True):
        live = optimizer.state.get(parameter, {})
        for key, saved in state["state"].get(index, {}).items():
            found = live.get(key)
            tensors = isinstance(found, torch.Tensor) and isinstance(saved, torch.Tensor)
            if tensors and found.dtype != saved.dtype and (exact or not saved.ndim):
                live[key] = saved.to(found.device)


def _moved_settings(
    optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[int, torch.Tensor]:
    """Return id of a saved setting (`lr` may be a tensor) -> the same where the live one is."""
    moved = {}
    for live, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in saved.items():
            here: Any = live.get(key)
            tensors = isinstance(value, torch.Tensor) and isinstance(here, torch.Tensor)
            if tensors and here.device != value.device:
                moved[id(value)] = value.to(here.device)
    return moved


def _live_places(
    optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return id of a saved tensor -> (live tensor it can be copied into, saved tensor)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = [i for group in state["param_groups"] for i in group["params"]]
    plain = (torch.Tensor, torch.nn.Parameter)
    taken = {
        p.untyped_storage().data_ptr()
        for p in parameters
        if type(p) in plain and p.layout is torch.strided
    }
    places: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for index, parameter in zip(order, parameters, strict=True):
        live_state, saved_state = optimizer.state.get(parameter), state["state"].get(index)
        if not isinstance(live_state, dict) or not isinstance(saved_state, dict):
            continue
        for key, saved in saved_state.items():
            live: Any = live_state.get(key)
            if id(saved) in places or not _can_take(live, saved):
                continue
            start = live.untyped_storage().data_ptr()
            if start not in taken:  # memory that two tensors share takes one value only
                taken.add(start)
                places[id(saved)] = live, saved
    return places


def _can_take(live: Any, saved: Any) -> bool:
    """Tell whether `saved` can be copied into `live`, bit for bit and with nothing else changed."""
    return (
        type(live) is torch.Tensor
        and isinstance(saved, torch.Tensor)
        and live.layout is torch.strided
        and (live.shape, live.dtype) == (saved.shape, saved.dtype)
        and not (live.requires_grad or live.is_inference() or live.is_conj() or live.is_neg())
        and live.device.type != "meta"
        and live.stride() == torch.empty_like(live, device="meta").stride()  # dense, no overlap
        and live.numel() > 0
    )


def _check_groups(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    live = [len(group["params"]) for group in optimizer.param_groups]
    found = [len(group["params"]) for group in state["param_groups"]]
    if live != found:
        raise StateMismatchError(
            f"the checkpoint has {len(found)} parameter groups of {found} parameters, "
            f"the optimizer {len(live)} of {live}",
            hint="build the optimizer with the groups it was saved with",
        )


def _check_names(live: list[list[str | None]], saved: list[list[str | None]]) -> None:
    for live_group, saved_group in zip(live, saved, strict=False):
        for here, there in zip(live_group, saved_group, strict=False):
            if here is not None and there is not None and here != there:
                raise StateMismatchError(
                    f"the optimizer has {here} where the checkpoint has {there}",
                    shape_changes={here: f"{there} -> {here}"},
                    hint="give the optimizer its parameters in the order they were saved in",
                )


def _check_shapes(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    places = [i for group in state["param_groups"] for i in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        for key, value in state["state"].get(place, {}).items():
            if key not in _LIKE_PARAMETER or getattr(value, "shape", None) == parameter.shape:
                continue
            if isinstance(value, torch.Tensor):
                shapes = f"{list(value.shape)} -> {list(parameter.shape)}"
                raise StateMismatchError(
                    f"{key} of parameter {place} does not fit the optimizer: {shapes}",
                    shape_changes={f"{place}.{key}": shapes},
                )
