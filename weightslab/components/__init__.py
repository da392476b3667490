"""The doors of the package. Each is imported when it is first used.

from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightslab.components.checkpoint_manager_v2 import CheckpointManagerV2
    from weightslab.components.experiment_hash import ExperimentHashGenerator
    from weightslab.engine.identity.samples import SampleSet
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
    "AnySave",
    "AtExit",
    "CheckpointManagerV2",
    "ExperimentHashGenerator",
    "FixedInterval",
    "InitialSave",
    "OnException",
    "OnPreemption",
    "Preempted",
    "ResumableSampler",
    "SampleSet",
    "SpecificSteps",
    "TimeInterval",
]
_POLICIES = "weightslab.engine.saving.policies"

_DOORS = {
    "CheckpointManagerV2": "weightslab.components.checkpoint_manager_v2",
    "ExperimentHashGenerator": "weightslab.components.experiment_hash",
    "ResumableSampler": "weightslab.engine.training.sampler",
    "SampleSet": "weightslab.engine.identity.samples",
    "Preempted": "weightslab.engine.saving.held_signals",
    "AnySave": _POLICIES,
    "AtExit": _POLICIES,
    "FixedInterval": _POLICIES,
    "InitialSave": _POLICIES,
    "OnException": _POLICIES,
    "OnPreemption": _POLICIES,
    "SpecificSteps": _POLICIES,
    "TimeInterval": _POLICIES,
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
