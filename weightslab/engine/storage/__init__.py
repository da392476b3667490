"""Where bytes live: the `Store` protocol, a local folder, a dict in memory."""

from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.storage.store import Buffer, ForeignFileError, Hold, KeyStat, Store

__all__ = [
    "Buffer",
    "ForeignFileError",
    "Hold",
    "KeyStat",
    "LocalStore",
    "MemoryStore",
    "Store",
]
