"""Test tools for authors of stores: the contract every store must pass, and faults.

They need pytest, which the package itself does not.
"""

from weightslab.engine.testing.faults import (
    FaultyStore,
    Operation,
    RecordingStore,
    SimulatedCrash,
)
from weightslab.engine.testing.store_contract import StoreContract

__all__ = ["FaultyStore", "Operation", "RecordingStore", "SimulatedCrash", "StoreContract"]
