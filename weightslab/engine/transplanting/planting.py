"""Planning a transplant: which tensor goes where, checked before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import CheckpointError, StateMismatchError
from weightslab.engine.identity.wrappers import unwrap
from weightslab.engine.loading.reading import read_state
from weightslab.engine.repository.component_file import read_architecture
from weightslab.engine.tensors.matching import Spec, classes_of, match_tensors
from weightslab.engine.tensors.storable import tie_key
from weightslab.engine.training.state import (
    apply_all,
    capture_model,
    parameter_names,
    plan_model_restore,
)
from weightslab.engine.transplanting.moments import Source, plan_optimizers
from weightslab.engine.transplanting.report import Move, TransplantReport

if TYPE_CHECKING:
    from collections.abc import Hashable

    from weightslab.engine.loading.reading import LoadedModel
    from weightslab.engine.repository.experiment import ExperimentRecord
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.training.state import RestorePlan
    from weightslab.engine.transplanting.report import OptimizerMoves

__all__ = ["Transplant", "plan"]

Tensors = Mapping[str, torch.Tensor]


@dataclass(slots=True)
class _Part:
    """One model of a transplant.

    Attributes:
        prefix: before each name in the report: empty, or `{name}/`.
        copied, sliced: what goes where.
        plan: the restore of it.
        fresh, unused: as in the report.
    """

    prefix: str
    copied: list[Move]
    sliced: list[Move]
    plan: RestorePlan
    fresh: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(slots=True)
class Transplant:
    """A transplant that was checked; `apply` carries it out."""

    checkpoint: str
    modules: list[torch.nn.Module]
    parts: list[_Part]
    optimizers: dict[str, tuple[RestorePlan, OptimizerMoves]]
    problems: list[str]

    def apply(self) -> None:
        """Change the models, then the optimizers.

        Raises: CheckpointError if code of a model or an optimizer fails midway.
        """
        plans = [part.plan for part in self.parts]
        apply_all([*plans, *(plan for plan, _ in self.optimizers.values())])

    def report(self, *, dry_run: bool) -> TransplantReport:
        """Return what is, or would be, done."""
        return TransplantReport(
            checkpoint=self.checkpoint,
            copied=tuple(_prefixed(p.prefix, move) for p in self.parts for move in p.copied),
            sliced=tuple(_prefixed(p.prefix, move) for p in self.parts for move in p.sliced),
            fresh={p.prefix + name: why for p in self.parts for name, why in p.fresh.items()},
            unused=tuple(p.prefix + name for p in self.parts for name in p.unused),
            optimizers={name: moves for name, (_, moves) in self.optimizers.items()},
            problems=tuple(self.problems),
            dry_run=dry_run,
        )


def _prefixed(prefix: str, move: Move) -> Move:
    return Move(
        source=prefix + move.source, target=prefix + move.target, by=move.by, change=move.change
    )


def plan(
    store: Store,
    manifest: Manifest,
    record: ExperimentRecord | None,
    model: Any,
    optimizer: Any,
    *,
    resize: bool,
) -> Transplant:
    """Read and verify the checkpoint, and decide where each of its tensors goes; nothing is changed.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        record: its experiment; None if it is damaged, and classes of modules are unknown.
        model: module or dict of name -> module.
        optimizer: optimizer, dict of name -> optimizer, or None.
        resize: slice and pad.
    Raises: see `transplant`.
    """
    pairs = _models(manifest, model)
    state = read_state(store, manifest, parts=pairs, training=optimizer is not None)
    document, problems = _document(store, record)
    parts: list[_Part] = []
    sources: dict[int, Source] = {}
    for name, module in pairs.items():
        key = "" if name == "model" else name.removeprefix("model.")
        classes = {} if document is None else classes_of(document, key)
        prefix = f"{key}/" if len(pairs) > 1 else ""
        part, found = _plan_part(prefix, state.models[name], module, classes, resize=resize)
        parts.append(part)
        sources |= found
    names = parameter_names(pairs.values())
    moved = plan_optimizers(manifest, state.training, optimizer, sources, names)
    modules = [unwrap(module) for module in pairs.values()]
    return Transplant(manifest.name.stem, modules, parts, moved, problems)


def _models(manifest: Manifest, model: Any) -> dict[str, torch.nn.Module]:
    """Return part of the checkpoint -> the module that takes it.

    Raises: StateMismatchError, TypeError.
    """
    parts = manifest.model_parts
    if isinstance(model, torch.nn.Module):
        if len(parts) == 1:
            return {parts[0]: model}
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds {len(parts)} models: {', '.join(parts)}",
            hint='pass a dict, such as {"G": generator}',
        )
    if not isinstance(model, Mapping) or not model:
        raise TypeError(f"model is a module or a dict of them, not {type(model).__name__}")
    found = {f"model.{name}": module for name, module in model.items()}
    if unknown := sorted(set(found) - set(parts)):
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds {', '.join(parts)}, not {', '.join(unknown)}",
            missing=unknown,
        )
    return found


def _document(
    store: Store, record: ExperimentRecord | None
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """Return the stored architecture, from which classes are known; without it, shapes decide alone."""
    if record is None:
        return None, ["the experiment is damaged: modules are told by names and shapes alone"]
    if record.components.model is None:
        return None, []
    try:
        return read_architecture(store, record), []
    except CheckpointError as error:
        return None, [f"modules are told by names and shapes alone: {error.message}"]


# ---------------------------------------------------------------- one model
def _plan_part(
    prefix: str,
    saved: LoadedModel,
    module: torch.nn.Module,
    classes: Mapping[str, str],
    *,
    resize: bool,
) -> tuple[_Part, dict[int, Source]]:
    """Plan one model.

    Returns: the plan, and id of a live parameter -> what goes into it.
    """
    live = capture_model(module).tensors
    source = {**saved.tensors, **{k: saved.tensors[v] for k, v in saved.aliases.items()}}
    named, found = match_tensors(_specs(source), _specs(live), classes, _live_classes(module))
    copied = _moves(named, source, live, by="name") | _moves(found, source, live, by="structure")
    sliced = _slices(copied, source, live) if resize else {}
    given = {target: source[move.source] for target, move in copied.items()}
    given |= {name: resized(source[name], live[name].clone()) for name in sliced}
    restore = plan_model_restore(module, given, saved.extra, aliases={}, strict=False, cast=True)
    for name in restore.changes:  # two saved tensors for one live one
        copied.pop(name, None)
        sliced.pop(name, None)
    moves = copied | sliced
    used = {move.source for move in moves.values()}
    tied = _ties(live)
    fresh = {
        name: restore.changes.get(name) or _why(name, source, live, used)
        for name in live
        if name not in moves and not any(other in moves for other in tied[tie_key(live[name])])
    }
    part = _Part(
        prefix,
        [copied[name] for name in live if name in copied],
        [sliced[name] for name in live if name in sliced],
        restore,
        fresh,
        _unused(saved, source, used),
    )
    return part, _sources(module, moves, saved, tied)


def _moves(names: Mapping[str, str], source: Tensors, live: Tensors, *, by: str) -> dict[str, Move]:
    return {
        target: Move(source=name, target=target, by=by, change=_cast(source[name], live[target]))
        for target, name in names.items()
        if _converts(source[name], live[target])
    }


def _slices(copied: Mapping[str, Move], source: Tensors, live: Tensors) -> dict[str, Move]:
    """Return what only has another size under its old name."""
    taken = {move.source for move in copied.values()}
    found = {}
    for name in live:
        if name in copied or name not in source or name in taken:
            continue
        if _can_slice(source[name], live[name]):
            shapes = " -> ".join(str(list(t.shape)) for t in (source[name], live[name]))
            cast = _cast(source[name], live[name])
            change = f"{shapes}, {cast}" if cast else shapes
            found[name] = Move(source=name, target=name, change=change)
    return found


def _ties(live: Tensors) -> dict[Hashable, list[str]]:
    """Return each live tensor's names, by what tells that they are one."""
    found: dict[Hashable, list[str]] = {}
    for name, tensor in live.items():
        found.setdefault(tie_key(tensor), []).append(name)
    return found


def _specs(tensors: Tensors) -> dict[str, Spec]:
    return {name: Spec(str(t.dtype), tuple(t.shape)) for name, t in tensors.items()}


def _live_classes(module: torch.nn.Module) -> dict[str, str]:
    """Return module path -> name of its class, wrappers left out."""
    found: dict[str, str] = {}
    stack = [("", module)]
    while stack:
        path, outer = stack.pop()
        inner = unwrap(outer)
        found[path] = type(inner).__name__
        stack += [
            (f"{path}.{name}" if path else name, child)
            for name, child in inner._modules.items()
            if child is not None
        ]
    return found


def _converts(saved: torch.Tensor, live: torch.Tensor) -> bool:
    packed = any("float4" in str(t.dtype) for t in (saved, live))
    return saved.dtype == live.dtype or (torch.can_cast(saved.dtype, live.dtype) and not packed)


def _cast(saved: torch.Tensor, live: torch.Tensor) -> str:
    if saved.dtype == live.dtype:
        return ""
    return " -> ".join(str(t.dtype).removeprefix("torch.") for t in (saved, live))


def _can_slice(saved: torch.Tensor, live: torch.Tensor) -> bool:
    same_kind = saved.ndim == live.ndim and saved.ndim > 0
    packed = any("float4" in str(t.dtype) for t in (saved, live))
    return same_kind and not packed and _converts(saved, live) and live.device.type != "meta"


def resized(saved: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Copy the corner that both have into `into`, and return it."""
    corner = tuple(slice(0, min(a, b)) for a, b in zip(saved.shape, into.shape, strict=True))
    with torch.no_grad():
        into[corner].copy_(saved[corner])
    return into


def _why(name: str, source: Tensors, live: Tensors, used: set[str]) -> str:
    """Say why a tensor of the model got nothing."""
    if name not in source:
        return "not in the checkpoint"
    if name in used:
        return "what has this name went elsewhere"
    shapes = " -> ".join(
        f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (source[name], live[name])
    )
    return f"does not fit: {shapes}"


def _unused(saved: LoadedModel, source: Tensors, used: set[str]) -> tuple[str, ...]:
    """Return the saved tensors that went nowhere; one that is tied to a used one is used."""
    kept = {saved.aliases.get(name, name) for name in used}
    return tuple(name for name in source if saved.aliases.get(name, name) not in kept)


def _sources(
    module: torch.nn.Module,
    moves: Mapping[str, Move],
    saved: LoadedModel,
    tied: Mapping[Hashable, list[str]],
) -> dict[int, Source]:
    """Return id of a live parameter -> all names of the saved tensor that goes into it, its value."""
    groups: dict[str, list[str]] = {name: [name] for name in saved.tensors}
    for dropped, kept in saved.aliases.items():
        groups[kept].append(dropped)
    found = {}
    for parameter in module.parameters():
        names = tied.get(tie_key(parameter.detach()), [])
        move = next((moves[name] for name in names if name in moves), None)
        if move is not None:
            kept = saved.aliases.get(move.source, move.source)
            found[id(parameter)] = Source(groups[kept], saved.tensors[kept])
    return found
