"""Restoring: everything is checked to fit, then everything is copied."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, StateMismatchError
from weightslab.engine.jsonform import decode
from weightslab.engine.loading.options import LoadOptions
from weightslab.engine.loading.reading import read_state
from weightslab.engine.loading.report import LoadReport
from weightslab.engine.training.state import (
    apply_all,
    capture_model,
    parameter_names,
    plan_model_restore,
    plan_optimizer_restore,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import torch

    from weightslab.engine.loading.reading import LoadedState
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.training.state import RestorePlan

__all__ = ["restore", "summary"]

logger = logging.getLogger(__name__)


_DEFAULT: Final = LoadOptions()


def restore(
    store: Store,
    manifest: Manifest,
    models: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, Any] | None,
    *,
    load_optimizer: bool,
    given: bool,
    options: LoadOptions = _DEFAULT,
) -> LoadReport:
    """Load a checkpoint into live objects; nothing is changed unless everything fits.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        models: part -> live module; each takes the values on the device where it is.
        optimizers: name -> live optimizer; None if there is none.
        load_optimizer: False leaves optimizers alone and their bytes unread.
        given: the caller named the optimizer, so its state has to be there.
        options: what is verified, and what may differ. Without `strict` everything that fits is
            loaded, an optimizer as a whole or not at all.
    Returns: what was loaded and what was not.
    Raises: IntegrityError and its kinds, StateMismatchError.
    """
    common = _common_parts(manifest, models, strict=options.strict)
    saved = _saved_optimizers(manifest)
    if load_optimizer:
        _check_optimizers(manifest, saved, optimizers, given=given and options.strict)
    state = read_state(
        store, manifest, parts=common, training=load_optimizer, verify=options.verify
    )
    plans = {part: _plan_model(state, part, models[part], options) for part in common}
    optimizer_plans: dict[str, RestorePlan] = {}
    left_out: dict[str, str] = {}
    if load_optimizer and optimizers and saved and state.training is not None:
        optimizer_plans, left_out = _plan_optimizers(
            manifest, state.training["optimizer"], optimizers, models, strict=options.strict
        )
    elif saved:
        why = "load_optimizer=False" if not load_optimizer else "no optimizer was given"
        left_out = dict.fromkeys(saved, why)
    apply_all([*plans.values(), *optimizer_plans.values()])
    missing, unexpected = _entries_of_one_side(manifest, models, common)
    return LoadReport(
        loaded=_named(plans, lambda plan: plan.loaded),
        missing=(*_named(plans, lambda plan: plan.missing), *missing),
        unexpected=(*_named(plans, lambda plan: plan.unexpected), *unexpected),
        shape_changes=_by_name(plans, lambda plan: plan.changes),
        casts=_by_name(plans, lambda plan: plan.casts),
        optimizers=tuple(optimizer_plans),
        optimizers_left_out=left_out,
        verify=options.verify,
    )


def _common_parts(manifest: Manifest, models: Mapping[str, object], *, strict: bool) -> list[str]:
    """Return the models that checkpoint and caller both have; all of them, if that is asked for."""
    saved = set(manifest.model_parts)
    common, missing = sorted(set(models) & saved), sorted(set(models) - saved)
    unexpected = sorted(saved - set(models))
    if not common or (strict and (missing or unexpected)):
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds {', '.join(sorted(saved))}, "
            f"not {', '.join(sorted(models))}",
            missing=missing,
            unexpected=unexpected,
            hint="pass the model, or the dict of models, that was saved",
        )
    return common


def _entries_of_one_side(
    manifest: Manifest, models: Mapping[str, torch.nn.Module], common: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the entries of whole models that only the caller has, and only the checkpoint."""
    missing, unexpected = [], []
    for part in sorted(set(models) - set(common)):
        state = capture_model(models[part])
        missing += [_prefix(part) + name for name in (*state.tensors, *state.extra)]
    for part in sorted(set(manifest.model_parts) - set(common)):
        unexpected += [_prefix(part) + name for name in manifest.tensors_of_part(part)]
    return missing, unexpected


def _prefix(part: str) -> str:
    return "" if part == "model" else f"{part.removeprefix('model.')}/"


def _named(
    plans: Mapping[str, RestorePlan], names_of: Callable[[RestorePlan], Iterable[str]]
) -> tuple[str, ...]:
    return tuple(_prefix(part) + name for part, plan in plans.items() for name in names_of(plan))


def _by_name(
    plans: Mapping[str, RestorePlan], found_in: Callable[[RestorePlan], Mapping[str, str]]
) -> dict[str, str]:
    return {
        _prefix(part) + name: text
        for part, plan in plans.items()
        for name, text in found_in(plan).items()
    }


def _saved_optimizers(manifest: Manifest) -> list[str]:
    tree = manifest.state.get("training")
    optimizers = tree.get("optimizer") if isinstance(tree, dict) else None
    if optimizers is not None and not isinstance(optimizers, dict):
        raise FormatError(f"the training state of {manifest.name.stem} is not in order")
    return sorted(optimizers or {})


def _check_optimizers(
    manifest: Manifest, saved: list[str], optimizers: Mapping[str, Any] | None, *, given: bool
) -> None:
    if optimizers and not saved:
        message = f"checkpoint {manifest.name.stem} holds no optimizer state"
        if manifest.derived_from is not None:
            message += ": it was dropped by thinning"
        if given:
            raise StateMismatchError(
                message, hint="pass load_optimizer=False to load the weights alone"
            )
        logger.warning("%s; the registered optimizer stays as it is", message)
    elif saved and not optimizers:
        logger.warning(
            "checkpoint %s holds the state of %s, but no optimizer was passed or registered; only "
            "the weights are loaded (load_optimizer=False silences this)",
            manifest.name.stem,
            ", ".join(saved),
        )


def _plan_model(
    state: LoadedState, part: str, module: torch.nn.Module, options: LoadOptions
) -> RestorePlan:
    saved = state.models[part]
    wrappers = (state.training or {}).get("wrappers", {})
    return plan_model_restore(
        module,
        saved.tensors,
        saved.extra,
        aliases=saved.aliases,
        wrapper_state=wrappers.get(part),
        strict=options.strict,
        cast=options.cast,
    )


def _plan_optimizers(
    manifest: Manifest,
    saved: dict[str, Any],
    optimizers: Mapping[str, Any],
    models: Mapping[str, torch.nn.Module],
    *,
    strict: bool,
) -> tuple[dict[str, RestorePlan], dict[str, str]]:
    """Return saved name -> plan, and saved name -> why there is none (only if not strict)."""
    if len(saved) == 1 and len(optimizers) == 1:
        pairs = {next(iter(saved)): next(iter(optimizers.values()))}
    elif set(saved) == set(optimizers) or not strict:
        pairs = {name: optimizers[name] for name in sorted(saved) if name in optimizers}
    else:
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds the optimizers {', '.join(sorted(saved))}, "
            f"not {', '.join(sorted(optimizers))}",
            missing=sorted(set(optimizers) - set(saved)),
            unexpected=sorted(set(saved) - set(optimizers)),
        )
    names = parameter_names(models.values())
    plans = {}
    left_out = {name: "no optimizer of this name" for name in sorted(saved) if name not in pairs}
    for name, live in pairs.items():
        try:
            plans[name] = plan_optimizer_restore(live, saved[name], names)
        except StateMismatchError as error:  # noqa: PERF203 - one per optimizer, mostly one
            if strict:
                raise
            logger.warning("the optimizer %s stays as it is: %s", name, error)
            left_out[name] = str(error)
    return plans, left_out


def summary(manifest: Manifest, *, folder: Path) -> dict[str, Any]:
    """Return what a load tells the caller: step, timestamp, metadata, metrics, exp_hash, path.

    Raises: FormatError; so it is asked before anything is restored.
    """
    file = manifest.weights_file()
    return {
        "step": manifest.name.step,
        "revision": manifest.name.revision,
        "timestamp": manifest.created_at.isoformat(),
        "metadata": decode(manifest.metadata, path="metadata"),
        "metrics": manifest.metric_values(),
        "exp_hash": manifest.name.exp_hash,
        "path": folder / file,
    }
