"""The doors of the package. Each is imported when it is first used.

from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.components import BestN, LatestN, Retention  # what to keep
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightslab.components.checkpoint import CheckpointManager
    from weightslab.components.checkpoint_manager_v2 import CheckpointManagerV2
    from weightslab.components.experiment_hash import ExperimentHashGenerator
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.retention.policies import (
        AnyOf,
        BestN,
        ByteBudget,
        CustomSteps,
        EveryNSeconds,
        EveryNSteps,
        LatestN,
        PreserveAll,
    )
    from weightslab.engine.retention.rules import Retention
    from weightslab.engine.saving.held_signals import Preempted
    from weightslab.engine.saving.policies import (
        AnySave,
        AtExit,
        FixedInterval,
        InitialSave,
        OnException,
        OnPreemption,
        SpecificSteps,
        TimeInterval,
    )
    from weightslab.engine.training.sampler import ResumableSampler

__all__ = [
    "AnyOf",
    "AnySave",
    "AtExit",
    "BestN",
    "ByteBudget",
    "CheckpointManager",
    "CheckpointManagerV2",
    "CustomSteps",
    "EveryNSeconds",
    "EveryNSteps",
    "ExperimentHashGenerator",
    "FixedInterval",
    "InitialSave",
    "LatestN",
    "OnException",
    "OnPreemption",
    "Preempted",
    "PreserveAll",
    "ResumableSampler",
    "Retention",
    "SampleSet",
    "SpecificSteps",
    "TimeInterval",
]
_SAVE_POLICIES = "weightslab.engine.saving.policies"
_RETENTION_POLICIES = "weightslab.engine.retention.policies"

_DOORS = {
    "CheckpointManager": "weightslab.components.checkpoint",
    "CheckpointManagerV2": "weightslab.components.checkpoint_manager_v2",
    "ExperimentHashGenerator": "weightslab.components.experiment_hash",
    "ResumableSampler": "weightslab.engine.training.sampler",
    "SampleSet": "weightslab.engine.identity.samples",
    "Preempted": "weightslab.engine.saving.held_signals",
    "AnySave": _SAVE_POLICIES,
    "AtExit": _SAVE_POLICIES,
    "FixedInterval": _SAVE_POLICIES,
    "InitialSave": _SAVE_POLICIES,
    "OnException": _SAVE_POLICIES,
    "OnPreemption": _SAVE_POLICIES,
    "SpecificSteps": _SAVE_POLICIES,
    "TimeInterval": _SAVE_POLICIES,
    "AnyOf": _RETENTION_POLICIES,
    "BestN": _RETENTION_POLICIES,
    "ByteBudget": _RETENTION_POLICIES,
    "CustomSteps": _RETENTION_POLICIES,
    "EveryNSeconds": _RETENTION_POLICIES,
    "EveryNSteps": _RETENTION_POLICIES,
    "LatestN": _RETENTION_POLICIES,
    "PreserveAll": _RETENTION_POLICIES,
    "Retention": "weightslab.engine.retention.rules",
}


def __getattr__(name: str) -> Any:
    """Import the door that is asked for."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_DOORS[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_DOORS])
