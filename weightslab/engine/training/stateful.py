"""State of anything with `state_dict` and `load_state_dict`: schedulers, scalers, samplers, averages.

The state is handed to the object's own `load_state_dict`, as a copy. What torch's own classes would
take in silence though it does not fit them is refused before.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.optim.lr_scheduler import LRScheduler

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.training.plan import RestorePlan, check_class, class_name, own_copy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["capture_stateful", "hand_over", "is_stateful", "plan_stateful_restore", "state_of"]

_FUNCTIONS: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    functools.partial,
)


def is_stateful(item: object) -> bool:
    """Tell whether `item` has `state_dict` and `load_state_dict`."""
    names = ("state_dict", "load_state_dict")
    return all(callable(getattr(item, name, None)) for name in names)


def capture_stateful(item: Any) -> dict[str, Any]:
    """Return the state of anything with `state_dict`: a scheduler, a gradient scaler, a sampler.

    Functions that a scheduler of torch keeps (`lr_lambda` and the like) are code: they are not in
    the state, and the scheduler that takes it uses its own.

    Raises: NotStorableError if it has no `state_dict`, or that fails.
    """
    if not callable(getattr(item, "state_dict", None)):
        raise NotStorableError(
            f"a {class_name(item)} has no state_dict()",
            hint="give it state_dict and load_state_dict",
        )
    found = {"class": class_name(item), "state": _call_state_dict(item)}
    if isinstance(item, LRScheduler):
        found["state"] = _without_functions(item, found["state"])
        found["scheduler"] = _outline(item)
    return found


def _call_state_dict(item: Any) -> Any:
    try:
        return item.state_dict()
    except Exception as error:  # code of the user, or of a library
        raise NotStorableError(
            f"state_dict() of a {class_name(item)} failed: {type(error).__name__}: {error}"
        ) from error


def plan_stateful_restore(item: Any, saved: Any) -> RestorePlan:
    """Check that a saved state is one of the same class as `item`; nothing is changed.

    An object may have a `check_state_dict(state)` of its own: it raises if the state does not fit,
    before anything is changed.

    Raises: StateMismatchError.
    """
    what = class_name(item)
    if not callable(getattr(item, "load_state_dict", None)):
        raise StateMismatchError(f"a {what} has no load_state_dict() and cannot take a state")
    state = state_of(saved, {"class", "state"}, what)
    check_class(saved["class"], what, hint="leave its state out")
    try:
        if isinstance(item, LRScheduler):
            _check_scheduler(item, state, saved.get("scheduler"))
        elif isinstance(item, torch.amp.GradScaler):
            _check_scaler(item, state)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise StateMismatchError(f"the saved state of {what} is not in order") from error
    check = getattr(item, "check_state_dict", None)
    if callable(check):
        _ask(check, state, what)
    return hand_over(item, state)


def hand_over(item: Any, state: Any) -> RestorePlan:
    """Plan to call `load_state_dict` with a copy of `state`.

    It is copied now, so that memory that runs out does so before anything is changed.
    """
    mine = own_copy(state)
    return RestorePlan(class_name(item), lambda: item.load_state_dict(mine))


def state_of(saved: Any, keys: set[str], what: str) -> Any:
    """Return the entry `state` of a captured tree that has at least `keys`.

    Raises: StateMismatchError.
    """
    if not isinstance(saved, dict) or not keys <= set(saved):
        raise StateMismatchError(f"the saved state of {what} is not in order")
    return saved["state"]


def _ask(check: Callable[[Any], object], state: Any, what: str) -> None:
    try:
        check(own_copy(state))  # it may keep or change what it is shown
    except StateMismatchError:
        raise
    except Exception as error:  # code of the user, which says no in its own way
        raise StateMismatchError(f"the saved state does not fit the {what}: {error}") from error


# ---------------------------------------------------------------- schedulers
def _inner(scheduler: Any) -> list[Any]:
    """Return the schedulers inside a `SequentialLR` or `ChainedScheduler`."""
    found = getattr(scheduler, "_schedulers", [])
    return [each for each in found if isinstance(each, LRScheduler)]


def _outline(scheduler: Any) -> dict[str, Any]:
    """Return what has to be equal for a state to fit: class, parameter groups, the same inside."""
    return {
        "class": class_name(scheduler),
        "groups": len(scheduler.optimizer.param_groups),
        "inner": [_outline(each) for each in _inner(scheduler)],
    }


def _without_functions(scheduler: Any, state: Any) -> Any:
    """Leave out functions where loading is torch's own: it keeps what the state does not name."""
    own = type(scheduler).load_state_dict
    if not str(getattr(own, "__module__", "")).startswith("torch.optim."):
        return state
    kept = {key: value for key, value in state.items() if not isinstance(value, _FUNCTIONS)}
    inside = _inner(scheduler)
    if inside and len(inside) == len(kept.get("_schedulers", ())):
        kept["_schedulers"] = [
            _without_functions(each, found)
            for each, found in zip(inside, kept["_schedulers"], strict=True)
        ]
    return kept


def _check_scheduler(scheduler: Any, state: dict[str, Any], outline: Any) -> None:
    if outline is not None:
        _check_outline(_outline(scheduler), outline)
    _check_functions(scheduler, state)


def _check_outline(live: dict[str, Any], saved: dict[str, Any]) -> None:
    check_class(saved["class"], live["class"], hint="leave its state out")
    if saved["groups"] != live["groups"]:
        raise StateMismatchError(
            f"the checkpoint has a {live['class']} over {saved['groups']} parameter groups, "
            f"the live one has {live['groups']}",
            hint="build the optimizer with the groups it was saved with",
        )
    if len(saved["inner"]) != len(live["inner"]):
        raise StateMismatchError(
            f"the checkpoint has a {live['class']} of {len(saved['inner'])} schedulers, "
            f"the live one has {len(live['inner'])}",
            hint="build it of the schedulers it was saved with",
        )
    for here, there in zip(live["inner"], saved["inner"], strict=True):
        _check_outline(here, there)


def _check_functions(scheduler: Any, state: dict[str, Any]) -> None:
    """Refuse the state of callable objects where the live scheduler has functions, or the reverse."""
    for key in ("lr_lambdas", "_scale_fn_custom"):
        if key not in state:
            continue
        live = _call_state_dict(scheduler)[key]
        if _forms(live) != _forms(state[key]):
            raise StateMismatchError(
                f"{key} of {class_name(scheduler)} are other kinds of functions: {_forms(state[key])} "
                f"in the checkpoint, {_forms(live)} in the live one",
                hint="give it the functions or callable objects that it was saved with",
            )
    for each, found in zip(_inner(scheduler), state.get("_schedulers", ()), strict=False):
        _check_functions(each, found)


def _forms(found: Any) -> list[str]:
    return ["function" if f is None else "object" for f in ([found], found)[type(found) is list]]


# ---------------------------------------------------------------- gradient scalers
def _check_scaler(scaler: Any, state: dict[str, Any]) -> None:
    """Refuse what torch would leave out in silence, or refuse midway."""
    if bool(state) != scaler.is_enabled():
        kinds = ("an enabled", "a disabled") if state else ("a disabled", "an enabled")
        raise StateMismatchError(
            f"the checkpoint holds the state of {kinds[0]} GradScaler, the live one is {kinds[1]} one",
            hint="make it with the same enabled= and on the same kind of device",
        )
