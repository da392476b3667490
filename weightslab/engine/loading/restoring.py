"""Restoring: everything is checked to fit, then everything is copied."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError, StateMismatchError
from weightslab.engine.jsonform import decode
from weightslab.engine.loading.reading import read_state
from weightslab.engine.training.state import (
    parameter_names,
    plan_model_restore,
    plan_optimizer_restore,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from weightslab.engine.loading.reading import LoadedState
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.training.state import RestorePlan

__all__ = ["restore", "summary"]

logger = logging.getLogger(__name__)


def restore(
    store: Store,
    manifest: Manifest,
    models: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, Any] | None,
    *,
    load_optimizer: bool,
    given: bool,
) -> None:
    """Load a checkpoint into live objects; nothing is changed unless everything fits.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        models: part -> live module.
        optimizers: name -> live optimizer; None if there is none.
        load_optimizer: False leaves optimizers alone and their bytes unread.
        given: the caller named the optimizer, so its state has to be there.
    Raises: IntegrityError and its kinds, StateMismatchError.
    """
    _check_parts(manifest, models)
    saved = _saved_optimizers(manifest)
    if load_optimizer:
        _check_optimizers(manifest, saved, optimizers, given=given)
    wanted = load_optimizer and bool(optimizers) and bool(saved)
    state = read_state(store, manifest, training=load_optimizer)
    plans = [_plan_model(state, part, module) for part, module in models.items()]
    if wanted and optimizers and state.training is not None:
        plans += _plan_optimizers(manifest, state.training["optimizer"], optimizers, models)
    for plan in plans:
        plan.apply()


def _check_parts(manifest: Manifest, models: Mapping[str, object]) -> None:
    saved = set(manifest.model_parts)
    missing, unexpected = sorted(set(models) - saved), sorted(saved - set(models))
    if missing or unexpected:
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds {', '.join(sorted(saved))}, "
            f"not {', '.join(sorted(models))}",
            missing=missing,
            unexpected=unexpected,
            hint="pass the model, or the dict of models, that was saved",
        )


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


def _plan_model(state: LoadedState, part: str, module: torch.nn.Module) -> RestorePlan:
    saved = state.models[part]
    wrappers = (state.training or {}).get("wrappers", {})
    return plan_model_restore(
        module,
        saved.tensors,
        saved.extra,
        aliases=saved.aliases,
        wrapper_state=wrappers.get(part),
    )


def _plan_optimizers(
    manifest: Manifest,
    saved: dict[str, Any],
    optimizers: Mapping[str, Any],
    models: Mapping[str, torch.nn.Module],
) -> list[RestorePlan]:
    if len(saved) == 1 and len(optimizers) == 1:
        pairs = [(next(iter(optimizers.values())), next(iter(saved.values())))]
    elif set(saved) == set(optimizers):
        pairs = [(optimizers[name], saved[name]) for name in sorted(saved)]
    else:
        raise StateMismatchError(
            f"checkpoint {manifest.name.stem} holds the optimizers {', '.join(sorted(saved))}, "
            f"not {', '.join(sorted(optimizers))}",
            missing=sorted(set(optimizers) - set(saved)),
            unexpected=sorted(set(saved) - set(optimizers)),
        )
    names = parameter_names(models.values())
    return [plan_optimizer_restore(live, state, names) for live, state in pairs]


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
