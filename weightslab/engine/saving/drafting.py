"""Drafting: from live objects to a checkpoint that only has to be written."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import NotStorableError
from weightslab.engine.jsonform import encode
from weightslab.engine.repository.commit import Draft
from weightslab.engine.saving.snapshot import take_snapshot
from weightslab.engine.saving.trail import TRAIL, plain_number
from weightslab.engine.saving.writer import library_versions
from weightslab.engine.training.state import (
    Progress,
    capture_model,
    capture_optimizer,
    capture_random,
    capture_tracked,
    parameter_names,
)
from weightslab.engine.values import ParentLink

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from weightslab.engine.saving.trail import StepRecord

_STEPS = 10**18  # file names have 6 to 18 digits for the step

__all__ = ["CheckpointFacts", "check_metrics", "check_step", "make_draft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint says beside its tensors; the fields are those of `Manifest` and `Progress`.

    `trail`: what the loop told of the first steps after the checkpoint before.
    """

    exp_hash: str
    experiment_digest: str
    step: int
    metadata: object
    metrics: dict[str, float]
    epoch: int | None = None
    samples_seen: int | None = None
    world_size: int = 1
    trail: Sequence[StepRecord] = ()

    @property
    def progress(self) -> Progress:
        """How far the training had come."""
        return Progress(
            step=self.step,
            epoch=self.epoch,
            samples_seen=self.samples_seen,
            world_size=self.world_size,
        )


def make_draft(
    models: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, Any] | None,
    facts: CheckpointFacts,
    tracked: Mapping[str, Any] | None = None,
) -> Draft:
    """Capture the objects and lay them out.

    The draft looks at the live tensors: it has to be written, or held still, before training goes on.
    Its parent and config file are those of the moment of the commit, and are set then.

    Args:
        models: part (`model` or `model.{name}`) -> module.
        optimizers: name -> optimizer; None for weights only. An empty dict still saves the rest of
            the training state: random state, tracked objects, what wrappers count.
        facts: everything else.
        tracked: name -> scheduler, scaler, generator, ...: saved with the optimizers.
    Raises: NotStorableError naming the tensor or value that has no place in the format.
    """
    tagged = encode(facts.metadata, leaf=_refuse_tensor, path="metadata")
    captured = {part: capture_model(module) for part, module in models.items()}
    names = parameter_names(models.values())
    progress = facts.progress
    tree = None
    if optimizers is not None:
        tree = _training_tree(optimizers, tracked or {}, names, progress)
        if facts.trail:
            tree[TRAIL] = {"steps": [record.to_tree() for record in facts.trail]}
    snapshot = take_snapshot(captured, tree)
    if tree is None and progress.is_told:
        snapshot.state["training"] = {"progress": progress.to_tree()}
    return Draft(
        exp_hash=facts.exp_hash,
        experiment_digest=facts.experiment_digest,
        step=facts.step,
        images=snapshot.images,
        aliases=snapshot.aliases,
        state=snapshot.state,
        metadata=tagged,
        metrics=encode(facts.metrics, path="metrics"),
        parent=ParentLink(kind="unknown"),
        config_file=None,
        versions=library_versions(),
    )


def _training_tree(
    optimizers: Mapping[str, Any],
    tracked: Mapping[str, Any],
    names: Mapping[int, str],
    progress: Progress,
) -> dict[str, Any]:
    """Return all that is saved besides the models and what their wrappers count."""
    tree = {
        "optimizer": {name: capture_optimizer(item, names) for name, item in optimizers.items()},
        "tracked": capture_tracked(tracked, names),
        "progress": progress.to_tree(),
    }
    # Last, because a state_dict() may draw numbers; it is restored last, too.
    return tree | {"random": capture_random()}


def _refuse_tensor(value: object, path: str) -> Any:
    if type(value).__module__.partition(".")[0] == "torch":
        raise NotStorableError(
            f"{path} is a {type(value).__qualname__}, which is no metadata",
            hint="use .item() or .tolist(), or pass numbers as metrics=",
        )
    return NotImplemented


def check_step(step: object, model: object) -> int:
    """Return the step as an int.

    Args:
        step: int >= 0; None takes `model.current_step`.
        model: the model, or None.
    Raises: ValueError, TypeError.
    """
    if step is None:
        step = getattr(model, "current_step", None)
        if step is None:
            raise ValueError(
                "step is None and the model has no current_step; pass step=<optimizer steps so far>"
            )
    if isinstance(step, bool) or not isinstance(step, numbers.Integral):
        raise TypeError(f"step is an int >= 0, not {step!r:.60} ({type(step).__name__})")
    number = int(step)
    if not 0 <= number < _STEPS:
        raise ValueError(f"step is an int from 0 to {_STEPS - 1}, not {number}")
    return number


def check_metrics(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the metrics as name -> int or float.

    Numbers may be Python, numpy or 0-d tensors; NaN and infinities are allowed.

    Raises: TypeError naming the metric that is no number.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics is a dict of name -> number, not {metrics!r:.60}")
    checked: dict[str, float] = {}
    for name, value in (metrics or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a metric is a str, not {name!r:.60}")
        number = plain_number(value)
        if number is None:
            raise TypeError(
                f"metric {name!r} is {value!r:.60} ({type(value).__name__}), not a number"
            )
        checked[name] = number
    return checked
