"""State of live objects: captured as plain trees, checked against an object, then copied into it.

The doors of this room; each kind of object has a module of its own.
"""

from __future__ import annotations

from weightslab.engine.training.models import (
    ModelState,
    capture_model,
    parameter_names,
    plan_model_restore,
)
from weightslab.engine.training.optimizers import capture_optimizer, plan_optimizer_restore
from weightslab.engine.training.plan import RestorePlan, apply_all
from weightslab.engine.training.progress import Progress, check_count
from weightslab.engine.training.rng import capture_random, plan_random_restore
from weightslab.engine.training.stateful import (
    capture_stateful,
    is_stateful,
    plan_stateful_restore,
)
from weightslab.engine.training.tracked import (
    capture_tracked,
    is_data_position,
    may_refuse,
    order_of,
    plan_tracked_restore,
    require_trackable,
)

__all__ = [
    "ModelState",
    "Progress",
    "RestorePlan",
    "apply_all",
    "capture_model",
    "capture_optimizer",
    "capture_random",
    "capture_stateful",
    "capture_tracked",
    "check_count",
    "is_data_position",
    "is_stateful",
    "may_refuse",
    "order_of",
    "parameter_names",
    "plan_model_restore",
    "plan_optimizer_restore",
    "plan_random_restore",
    "plan_stateful_restore",
    "plan_tracked_restore",
    "require_trackable",
]
