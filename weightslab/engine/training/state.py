"""State of live objects: captured as plain trees, checked against an object, then copied into it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from weightslab.engine.errors import CheckpointError, StateMismatchError
from weightslab.engine.identity.wrappers import clean_module_names, inner_of
from weightslab.engine.tensors.storable import find_obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "ModelState",
    "RestorePlan",
    "capture_model",
    "capture_optimizer",
    "parameter_names",
    "plan_model_restore",
    "plan_optimizer_restore",
]

_SHOWN: Final = 4
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """What a model is made of besides its code.

    Attributes:
        tensors: state_dict key without wrapper segments -> live tensor, detached, not copied.
        extra: the same for entries that are no tensors (`get_extra_state`).
        wrapper_state: the same for entries of the wrappers themselves (`AveragedModel.n_averaged`).
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    wrapper_state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A restore that was checked to fit; `apply()` carries it out.

    Attributes:
        what: the object, in words.
    """

    what: str
    _apply: Callable[[], object]

    def apply(self) -> None:
        """Copy the state into the live object.

        Raises: StateMismatchError if the object refuses halfway (code of its own): the object may
            then hold a part of the new state, and the message says so.
        """
        try:
            self._apply()
        except CheckpointError:
            raise
        except Exception as error:
            raise StateMismatchError(
                f"{self.what} refused its state halfway: {error}",
                hint="it may hold a part of the new state now; make it anew before going on",
            ) from error


# ---------------------------------------------------------------- models
def capture_model(model: torch.nn.Module) -> ModelState:
    """Return the state of `model`, with keys as if no known wrapper were around any module."""
    state = ModelState()
    keys = _clean_keys(model)
    for raw, value in model.state_dict().items():
        clean, of_wrapper = keys(raw)
        if of_wrapper:
            state.wrapper_state[clean] = value
        elif isinstance(value, torch.Tensor):
            state.tensors[clean] = value
        else:
            state.extra[clean] = value
    return state


def _clean_keys(model: torch.nn.Module) -> Callable[[str], tuple[str, bool]]:
    """Return raw state_dict key -> clean key, and whether it is the state of a wrapper itself."""
    modules = clean_module_names(model)
    live = dict(model.named_modules(remove_duplicate=False))

    def clean(raw: str) -> tuple[str, bool]:
        owner, _, name = raw.rpartition(".")
        if owner not in modules:
            return raw, False  # named by a hook of the user
        of_wrapper = owner in live and inner_of(live[owner]) is not None
        return (f"{modules[owner]}.{name}" if modules[owner] else name), of_wrapper

    return clean


def plan_model_restore(
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    extra: Mapping[str, Any],
    *,
    aliases: Mapping[str, str],
    wrapper_state: Mapping[str, Any] | None = None,
) -> RestorePlan:
    """Check that a saved state fits `model`; nothing is changed.

    Args:
        model: the live model; its wrappers do not matter.
        tensors: clean key -> saved tensor.
        extra: clean key -> saved value that is no tensor.
        aliases: clean key of a tied tensor -> key of the one that was stored.
        wrapper_state: state of the wrappers, taken where the live model has the same.
    Raises: StateMismatchError with `.missing`, `.unexpected` and `.shape_changes`.
    """
    saved: dict[str, Any] = {**tensors, **{k: tensors[v] for k, v in aliases.items()}, **extra}
    live = model.state_dict()
    _refuse_unready(live)
    keys = _clean_keys(model)
    target = OrderedDict[str, Any]()
    missing, changes, used = [], {}, set()
    for raw, value in live.items():
        clean, of_wrapper = keys(raw)
        if of_wrapper:
            target[raw] = (wrapper_state or {}).get(clean, value)
            continue
        used.add(clean)
        if clean not in saved:
            missing.append(clean)
            continue
        target[raw] = saved[clean]
        if (change := _change(saved[clean], value)) is not None:
            changes[clean] = change
    unexpected = [key for key in saved if key not in used]
    _refuse_mismatch(missing, unexpected, changes)
    _refuse_untied(live, target)
    target._metadata = live._metadata  # type: ignore[attr-defined] # versions of the modules
    return RestorePlan("the model", lambda: model.load_state_dict(target, strict=True))


def _change(saved: Any, live: Any) -> str | None:
    """Say how a saved entry differs in kind from the live one; None if it fits."""
    if not isinstance(saved, torch.Tensor) or not isinstance(live, torch.Tensor):
        if isinstance(saved, torch.Tensor) == isinstance(live, torch.Tensor):
            return None
        return f"{type(saved).__name__} -> {type(live).__name__}"
    if saved.shape == live.shape and saved.dtype == live.dtype:
        return None
    return " -> ".join(f"{str(t.dtype)[6:]} {list(t.shape)}" for t in (saved, live))


def _refuse_mismatch(missing: list[str], unexpected: list[str], changes: Mapping[str, str]) -> None:
    if not (missing or unexpected or changes):
        return
    parts = []
    if missing:
        parts.append(f"the checkpoint lacks {_some(missing)}")
    if unexpected:
        parts.append(f"the model lacks {_some(unexpected)}")
    if changes:
        parts.append(f"other shapes: {_some([f'{k} ({v})' for k, v in changes.items()])}")
    raise StateMismatchError(
        f"the checkpoint does not fit the model: {'; '.join(parts)}",
        missing=missing,
        unexpected=unexpected,
        shape_changes=changes,
        hint="nothing was changed; build the model as it was when the checkpoint was saved",
    )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse_unready(live: Mapping[str, Any]) -> None:
    """Refuse what no plain tensor can be copied into: lazy, meta, sharded and sparse tensors."""
    for name, value in live.items():
        found = find_obstacle(value) if isinstance(value, torch.Tensor) else None
        if found is not None:
            raise StateMismatchError(
                f"the model cannot take a checkpoint: {name} {found[0]}", hint=found[1]
            )


def _refuse_untied(live: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Refuse to put two different saved tensors into one live tensor."""
    first: dict[tuple[Any, ...], str] = {}
    for raw, value in live.items():
        if not isinstance(value, torch.Tensor) or value.numel() == 0:
            continue
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        kept = first.setdefault(place, raw)
        if kept != raw and not _same_bits(target[kept], target[raw]):
            raise StateMismatchError(
                f"{kept} and {raw} are one tensor in the model, but two in the checkpoint",
                shape_changes={raw: f"tied to {kept}"},
                hint="nothing was changed; untie them, or load a checkpoint of the tied model",
            )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.data_ptr() == other.data_ptr():
        return True
    return torch.equal(
        one.contiguous().reshape(-1).view(torch.uint8),
        other.contiguous().reshape(-1).view(torch.uint8),
    )


# ---------------------------------------------------------------- optimizers
def parameter_names(models: Iterable[torch.nn.Module]) -> dict[int, str]:
    """Return id of parameter -> name without wrapper segments, over all `models`."""
    names: dict[int, str] = {}
    for model in models:
        keys = _clean_keys(model)
        for raw, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), keys(raw)[0])
    return names


def capture_optimizer(optimizer: Any, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Return the state of an optimizer as a tree.

    Args:
        optimizer: anything with `state_dict`; torch optimizers are described further.
        names: id of parameter -> name, so that a load can tell parameters that changed places.
    """
    return {
        "class": _class_name(optimizer),
        "names": _group_names(optimizer, names or {}),
        "state": optimizer.state_dict(),
    }


def _class_name(item: object) -> str:
    return f"{type(item).__module__}.{type(item).__qualname__}"


def _group_names(optimizer: Any, names: Mapping[int, str]) -> list[list[str | None]]:
    groups = getattr(optimizer, "param_groups", [])
    return [[names.get(id(p)) for p in group.get("params", [])] for group in groups]


def plan_optimizer_restore(
    optimizer: Any, saved: Any, names: Mapping[int, str] | None = None
) -> RestorePlan:
    """Check that a saved state fits `optimizer`; nothing is changed.

    Raises: StateMismatchError naming class, groups or parameters that differ.
    """
    what = _class_name(optimizer)
    if not isinstance(saved, dict) or not {"class", "names", "state"} <= set(saved):
        raise StateMismatchError(f"the saved state of {what} is not in order")
    if saved["class"] != what:
        raise StateMismatchError(
            f"the checkpoint holds the state of {saved['class']}, not of {what}",
            hint="make the optimizer that was saved, or pass load_optimizer=False",
        )
    state = saved["state"]
    if isinstance(optimizer, torch.optim.Optimizer):
        try:
            _check_groups(optimizer, state)
            _check_names(_group_names(optimizer, names or {}), saved["names"])
            _check_shapes(optimizer, state)
        except (AttributeError, KeyError, TypeError) as error:
            raise StateMismatchError(f"the saved state of {what} is not in order") from error
    return RestorePlan(what, lambda: optimizer.load_state_dict(_own(state)))


def _own(tree: Any) -> Any:
    """Copy the tensors: torch optimizers keep the ones they are given, and these lie in a file."""
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return type(tree)((k, _own(v)) for k, v in tree.items())
    if isinstance(tree, (list, tuple)):
        return type(tree)(_own(v) for v in tree)
    return tree


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
