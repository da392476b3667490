"""The doors of the package. Each is imported when it is first used.

from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.components import BestN, LatestN, Retention  # what to keep
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__all__ = [
    "AnyOf",
    "BestN",
    "ByteBudget",
    "CheckpointManagerV2",
    "CustomSteps",
    "EveryNSeconds",
    "EveryNSteps",
    "ExperimentHashGenerator",
    "LatestN",
    "PreserveAll",
    "Retention",
    "SampleSet",
]

_POLICIES = "weightslab.engine.retention.policies"

_DOORS = {
    "CheckpointManagerV2": "weightslab.components.checkpoint_manager_v2",
    "ExperimentHashGenerator": "weightslab.components.experiment_hash",
    "SampleSet": "weightslab.engine.identity.samples",
    "AnyOf": _POLICIES,
    "BestN": _POLICIES,
    "ByteBudget": _POLICIES,
    "CustomSteps": _POLICIES,
    "EveryNSeconds": _POLICIES,
    "EveryNSteps": _POLICIES,
    "LatestN": _POLICIES,
    "PreserveAll": _POLICIES,
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
