"""State of models: captured without wrappers, checked against a live model, copied into it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.identity.wrappers import inner_of
from weightslab.engine.tensors.storable import find_obstacle, tie_key
from weightslab.engine.training.plan import RestorePlan, own_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

__all__ = ["ModelState", "capture_model", "parameter_names", "plan_model_restore"]

_SHOWN: Final = 4  # entries of each kind that a message lists
_EXTRA: Final = "_extra_state"  # torch/nn/modules/module.py, _EXTRA_STATE_KEY_SUFFIX
_FSDP_HOME: Final = "torch.distributed.fsdp.fully_sharded_data_parallel"


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


def capture_model(model: torch.nn.Module) -> ModelState:
    """Return the state of `model`, with keys as if no known wrapper were around any module.

    Raises: NotStorableError for a model sharded by FSDP (no collective is entered), and if two
        entries would have one key.
    """
    if sharding := _sharding_of(model):
        raise NotStorableError(f"the model {sharding[0]}", hint=sharding[1])
    state = ModelState()
    for raw, value in model.state_dict().items():
        clean, of_wrapper = _clean_key(model, raw)
        if of_wrapper:
            place: dict[str, Any] = state.wrapper_state
        else:
            place = state.tensors if isinstance(value, torch.Tensor) else state.extra
        if clean in place:
            raise NotStorableError(
                f"two entries of the state_dict are {clean!r} once wrappers are left out ({raw!r})",
                hint="rename one of the submodules",
            )
        place[clean] = value
    return state


def parameter_names(models: Iterable[torch.nn.Module]) -> dict[int, str]:
    """Return id of parameter -> name without wrapper segments, over all `models`."""
    names: dict[int, str] = {}
    for model in models:
        for raw, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), _clean_key(model, raw)[0])
    return names


def _clean_key(model: torch.nn.Module, raw: str) -> tuple[str, bool]:
    """Return a state_dict key without wrapper segments, and whether it is a wrapper's own entry.

    The key is followed through the live modules, because some wrappers (CheckpointWrapper) take
    their segment out of the keys themselves and others (torch.compile) leave it in.
    """
    *path, last = raw.split(".")
    clean: list[str] = []
    module = model
    for position, segment in enumerate(path):
        module = _inside(module, segment)
        if (found := inner_of(module)) is not None and found[0] == segment:
            module = found[1]
            continue
        child = module._modules.get(segment)
        if child is None:  # named by a hook of the user
            return ".".join([*clean, *path[position:], last]), False
        clean.append(segment)
        module = child
    of_wrapper = inner_of(_inside(module, last)) is not None
    return ".".join([*clean, last]), of_wrapper


def _inside(module: torch.nn.Module, segment: str) -> torch.nn.Module:
    """Return the innermost module whose entry `segment` can be; wrappers may hide their own."""
    while (found := inner_of(module)) is not None:
        own = (module._modules, module._parameters, module._buffers)
        if any(segment in entries for entries in own):
            break
        module = found[1]
    return module


def plan_model_restore(
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    extra: Mapping[str, Any],
    *,
    aliases: Mapping[str, str],
    wrapper_state: Mapping[str, Any] | None = None,
    strict: bool = True,
    cast: bool = False,
) -> RestorePlan:
    """Check that a saved state fits `model`; nothing is changed.

    The plan copies into the live tensors, so that optimizers and views stay good. A dtype that
    differs is a mismatch too: copying would round in silence.

    Args:
        model: the live model; its wrappers do not matter.
        tensors: clean key -> saved tensor.
        extra: clean key -> saved value that is no tensor.
        aliases: clean key of a tied tensor -> key of the one that was stored.
        wrapper_state: state of the wrappers, taken where the live model has the same.
        strict: refuse entries that only one side has or that do not fit; otherwise they are left
            alone, and the plan names them.
        cast: convert where only the dtype differs and torch can cast it.
    Raises: StateMismatchError with `.missing`, `.unexpected` and `.shape_changes`.
    """
    if sharding := _sharding_of(model):
        raise StateMismatchError(f"the model {sharding[0]}", hint=sharding[1])
    live = model.state_dict()
    _refuse_unready(live)
    saved = {**tensors, **{k: tensors[v] for k, v in aliases.items() if v in tensors}, **extra}
    fit = _compare(model, live, saved, wrapper_state or {}, cast=cast)
    if strict and (fit.changes or fit.missing or fit.unexpected):
        raise _mismatch(fit)
    _settle_ties(live, fit, strict=strict)
    pairs, finish = _hand_over(model, fit.target, live, strict=strict)
    return RestorePlan(
        "the model",
        finish,
        pairs=tuple(pairs),
        loaded=tuple(clean for clean in fit.clean.values() if clean not in fit.changes),
        missing=tuple(fit.missing),
        unexpected=tuple(fit.unexpected),
        changes=fit.changes,
        casts=fit.casts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """How a saved state fits a live one.

    Attributes:
        target: what would be loaded, by raw key.
        clean: raw key -> clean key of what is the model's own in `target`.
        missing, unexpected, changes, casts: as in `RestorePlan`.
    """

    target: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    clean: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    changes: dict[str, str] = field(default_factory=dict)
    casts: dict[str, str] = field(default_factory=dict)


def _compare(
    model: torch.nn.Module,
    live: Mapping[str, Any],
    saved: Mapping[str, Any],
    wrapper_state: Mapping[str, Any],
    *,
    cast: bool,
) -> _Fit:
    fit, used, absent = _Fit(), set(), {}
    for raw, value in live.items():
        clean, of_wrapper = _clean_key(model, raw)
        if of_wrapper:
            found = wrapper_state.get(clean, value)  # its own value where the checkpoint has none
        elif clean in saved:
            used.add(clean)
            found = saved[clean]
        else:
            absent[raw] = clean
            continue
        _place(fit, raw, (clean, of_wrapper), (found, value), cast=cast)
    fit.unexpected.extend(key for key in saved if key not in used)
    _fill_ties(live, fit, absent)
    return fit


def _fill_ties(live: Mapping[str, Any], fit: _Fit, absent: Mapping[str, str]) -> None:
    """Give an absent name what its tensor gets under another name; what is left is missing.

    Files of Hugging Face name a tied tensor once and do not say what the other names are.
    """
    places = (
        {tie_key(live[raw]): raw for raw in fit.target if isinstance(live[raw], torch.Tensor)}
        if absent
        else {}
    )
    for raw, clean in absent.items():
        other = places.get(tie_key(live[raw])) if isinstance(live[raw], torch.Tensor) else None
        if other is None:
            fit.missing.append(clean)
        else:
            fit.target[raw] = fit.target[other]
            fit.clean[raw] = clean


def _place(
    fit: _Fit, raw: str, key: tuple[str, bool], pair: tuple[Any, Any], *, cast: bool
) -> None:
    """Put a saved entry where it fits: among what is loaded, or among the changes."""
    (clean, of_wrapper), (saved, live) = key, pair
    change = None if clean.endswith(_EXTRA) else _change(saved, live)
    if change is not None and cast and _can_cast(saved, live):
        fit.casts[clean] = f"{str(saved.dtype)[6:]} -> {str(live.dtype)[6:]}"
    elif change is not None:
        fit.changes[clean] = change
        return
    fit.target[raw] = saved
    if not of_wrapper:
        fit.clean[raw] = clean


def _can_cast(saved: Any, live: Any) -> bool:
    """Tell whether only the dtype differs, and torch converts it within its kind or to a wider."""
    if not isinstance(saved, torch.Tensor) or not isinstance(live, torch.Tensor):
        return False
    kinds = (saved.dtype, live.dtype)
    packed = any("float4" in str(kind) for kind in kinds)  # two values an item: shapes deceive
    return saved.shape == live.shape and not packed and torch.can_cast(*kinds)


def _change(saved: Any, live: Any) -> str | None:
    """Say how a saved entry differs in kind from the live one; None if it fits."""
    if not isinstance(saved, torch.Tensor) or not isinstance(live, torch.Tensor):
        if isinstance(saved, torch.Tensor) == isinstance(live, torch.Tensor):
            return None
        return f"{type(saved).__name__} -> {type(live).__name__}"
    if saved.shape == live.shape and saved.dtype == live.dtype:
        return None
    return " -> ".join(f"{str(t.dtype)[6:]} {list(t.shape)}" for t in (saved, live))


def _mismatch(fit: _Fit) -> StateMismatchError:
    parts = []
    if fit.missing:
        parts.append(f"the checkpoint lacks {_some(fit.missing)}")
    if fit.unexpected:
        parts.append(f"the model lacks {_some(fit.unexpected)}")
    if fit.changes:
        parts.append(f"other shapes: {_some([f'{k} ({v})' for k, v in fit.changes.items()])}")
    return StateMismatchError(
        f"the checkpoint does not fit the model: {'; '.join(parts)}",
        missing=fit.missing,
        unexpected=fit.unexpected,
        shape_changes=fit.changes,
        hint="nothing was changed; build the model as it was when the checkpoint was saved",
    )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _sharding_of(model: torch.nn.Module) -> tuple[str, str] | None:
    """Return what to say of a model under FSDP, whose state_dict would wait for other processes."""
    kind: Any = getattr(sys.modules.get(_FSDP_HOME), "FullyShardedDataParallel", None)
    if kind is None or not any(isinstance(module, kind) for module in model.modules()):
        return None
    return (
        "is sharded over processes (FullyShardedDataParallel)",
        "sharded models are not supported yet; gather the full state on one process",
    )


def _refuse_unready(live: Mapping[str, Any]) -> None:
    """Refuse what no plain tensor can be copied into, before anything is copied."""
    for name, value in live.items():
        found = _why_unready(value) if isinstance(value, torch.Tensor) else None
        if found is not None:
            raise StateMismatchError(
                f"the model cannot take a checkpoint: {name} {found[0]}", hint=found[1]
            )


def _why_unready(tensor: torch.Tensor) -> tuple[str, str] | None:
    if (found := find_obstacle(tensor)) is not None:
        return found
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "was made in inference mode", "load inside torch.inference_mode(), or clone it first"
    if any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)):
        return "is an expanded tensor, whose items share memory", "register a .clone() of it"
    return None


def _settle_ties(live: Mapping[str, Any], fit: _Fit, *, strict: bool) -> None:
    """Refuse to put two different saved tensors into one live tensor; or leave the second out."""
    first: dict[Hashable, str] = {}
    for raw in list(fit.target):
        if not isinstance(live[raw], torch.Tensor):
            continue
        kept = first.setdefault(tie_key(live[raw]), raw)
        if kept == raw or _same_bits(fit.target[kept], fit.target[raw]):
            continue
        if strict:
            raise StateMismatchError(
                f"{kept} and {raw} are one tensor in the model, but two in the checkpoint",
                shape_changes={raw: f"tied to {kept}"},
                hint="nothing was changed; untie them, or load a checkpoint of the tied model",
            )
        del fit.target[raw]
        fit.changes[fit.clean.pop(raw, raw)] = f"tied to {kept}"


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one is other:
        return True
    flat = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(flat[0], flat[1])


def _hand_over(
    model: torch.nn.Module, target: OrderedDict[str, Any], live: Any, *, strict: bool
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Callable[[], object]]:
    """Return what is copied into the model, where that is all torch would do, and what is left.

    Code of the model gets clones, because it may keep them: saved tensors lie in a mapped file, and
    writing to one would end the process.
    """
    if _loads_its_own_way(model) or not _is_state_itself(model, live):
        mine: OrderedDict[str, Any] = own_copy(target)
        for key, value in mine.items():
            if isinstance(value, torch.Tensor) and isinstance(live[key], torch.Tensor):
                mine[key] = value.to(live[key].dtype)  # code of its own may not convert
        mine._metadata = live._metadata  # type: ignore[attr-defined] # versions of the modules
        return [], lambda: model.load_state_dict(mine, strict=strict)
    pairs = [(live[key], target[key]) for key in target if not key.endswith(_EXTRA)]
    extra = OrderedDict((k, own_copy(v)) for k, v in target.items() if k.endswith(_EXTRA))
    extra._metadata = live._metadata  # type: ignore[attr-defined]

    return pairs, lambda: model.load_state_dict(extra, strict=False) if extra else None


def _is_state_itself(model: torch.nn.Module, live: Mapping[str, Any]) -> bool:
    """Tell whether the tensors of the state_dict are those of the model, not made by a hook."""
    own = {
        tie_key(tensor)
        for tensors in (model.named_parameters, model.named_buffers)
        for _, tensor in tensors(remove_duplicate=False)
    }
    tensors = [v for k, v in live.items() if not k.endswith(_EXTRA)]
    return all(
        isinstance(tensor, torch.Tensor) and (not tensor.numel() or tie_key(tensor) in own)
        for tensor in tensors
    )


def _loads_its_own_way(model: torch.nn.Module) -> bool:
    if "load_state_dict" in vars(model) or _is_foreign(type(model).load_state_dict):
        return True
    return any(
        _is_foreign(type(module)._load_from_state_dict)
        or module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        for module in model.modules()
        if inner_of(module) is None  # hooks of known wrappers only rename
    )


def _is_foreign(function: Any) -> bool:
    return not str(getattr(function, "__module__", "")).startswith("torch.nn.modules.")
