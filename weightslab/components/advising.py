"""Advice: what the manager tells people in the log when something is likely not what they meant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.explain import diff_configs
from weightslab.engine.training.state import parameter_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weightslab.components.identifying import Identification
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.root import CheckpointRoot
    from weightslab.engine.values import Change

__all__ = [
    "Advice",
    "config_drift",
    "forgotten_parameters",
    "some",
    "warn_no_checkpoints",
    "warn_replaced",
]

logger = logging.getLogger(__name__)
_SHOWN: Final = 3
_LOOKED_AT: Final = 20  # experiments; a warning must not read a whole large root


class Advice:
    """Says each thing once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: str) -> None:
        """Log a warning, unless it was logged before."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


def some(changes: Sequence[Change]) -> str:
    """Return the first changes in words, and how many more there are."""
    shown = "; ".join(change.text for change in changes[:_SHOWN]) or "nothing that counts"
    more = len(changes) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def config_drift(current: Identification, config: Any, *, exclude: Sequence[str]) -> str | None:
    """Tell that the config is not the one of the experiment any more; None if it is."""
    if config is None or current.components.config is None:
        return None
    try:
        now = describe_config(config, exclude=exclude)
    except IdentityError as error:
        return f"the config cannot be described any more: {error}"
    if now.digest == current.components.config:
        return None
    changes = diff_configs(current.content.config or {}, now.plain, exclude=now.excluded)
    return (
        f"the config changed since the hash {current.exp_hash} was taken ({some(changes)}); "
        "call update_experiment_hash(config=...) if that matters"
    )


def forgotten_parameters(
    models: Mapping[str, Any], optimizers: Mapping[str, Any] | None
) -> list[str]:
    """Tell of optimizers that were made before the model changed: they hold parameters that are in
    no model, while parameters of a model are in no optimizer.
    """
    names = parameter_names(models.values())
    trainable = {
        id(p): names.get(id(p), "?")
        for model in models.values()
        for p in model.parameters()
        if p.requires_grad
    }
    groups = {name: getattr(o, "param_groups", []) for name, o in (optimizers or {}).items()}
    held = {name: {id(p) for g in found for p in g["params"]} for name, found in groups.items()}
    forgotten = [
        name for key, name in trainable.items() if not any(key in h for h in held.values())
    ]
    return [
        f"{name} holds {len(strangers)} parameters that are in no model, while {forgotten[0]} is in "
        "no optimizer: make the optimizer anew after changing the model, or this checkpoint may not "
        "load into one"
        for name, ids in held.items()
        if forgotten and (strangers := ids - set(names))
    ]


def warn_replaced(root: CheckpointRoot, manifest: Manifest) -> None:
    """Name both revisions of a step where the new one does not continue the old one."""
    name = manifest.name
    older = [
        entry
        for entry in root.catalog.checkpoints(name.exp_hash)
        if entry.name.step == name.step and entry.name.revision < name.revision
    ]
    before = max(older, key=lambda entry: entry.name.revision, default=None)
    if before is not None and manifest.parent.manifest_digest != before.digest:
        logger.warning(
            "step %d of %s was saved before by other training; %s is kept, %s answers for the step "
            "now",
            name.step,
            name.exp_hash,
            before.name.stem,
            name.stem,
        )


def warn_no_checkpoints(root: CheckpointRoot, exp_hash: str) -> None:
    """Tell where the nearest checkpoints are, if this experiment has none."""
    others = [e for e in root.catalog.experiments() if e.record and e.exp_hash != exp_hash]
    found = []
    for entry in reversed(others[-_LOOKED_AT:]):
        newest = root.catalog.latest(entry.exp_hash)
        if newest is not None:
            found.append((root.changes(entry.exp_hash, exp_hash), newest))
    if not found:
        return
    changes, newest = min(
        found, key=lambda pair: (len({c.component for c in pair[0]}), len(pair[0]))
    )
    hint = ""
    if changes and all(change.component == "config" for change in changes):
        hint = "; config keys that do not matter can be left out by config_exclude"
    logger.warning(
        "experiment %s has no checkpoints yet. Nearest: %s (%s), newest step %d; load it with "
        "load_latest_checkpoint(exp_hash=%r)%s",
        exp_hash,
        newest.name.exp_hash,
        some(changes),
        newest.name.step,
        newest.name.exp_hash,
        hint,
    )
