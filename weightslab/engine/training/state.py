"""State of live objects: captured as plain trees, checked against an object, then copied into it.

The doors of this room; models and optimizers have modules of their own.
"""

from __future__ import annotations

from weightslab.engine.training.models import (
    ModelState,
    capture_model,
    parameter_names,
    plan_model_restore,
)
from weightslab.engine.training.optimizers import (
    capture_optimizer,
    capture_stateful,
    plan_optimizer_restore,
    plan_stateful_restore,
)
from weightslab.engine.training.plan import RestorePlan, apply_all

__all__ = [
    "ModelState",
    "RestorePlan",
    "apply_all",
    "capture_model",
    "capture_optimizer",
    "capture_stateful",
    "parameter_names",
    "plan_model_restore",
    "plan_optimizer_restore",
    "plan_stateful_restore",
]
