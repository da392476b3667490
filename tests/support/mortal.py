"""A local store whose process dies: its locks go, its half-written files stay."""

from __future__ import annotations

import secrets

from weightslab.engine.storage.holder import host_id
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.system import close_locked
from weightslab.engine.testing.faults import FaultyStore, SimulatedCrash, _Point


class _Remembering(LocalStore):
    """A local store that remembers which holds it gave."""

    def __init__(self, root):
        super().__init__(root)
        self.given = []

    def hold(self, key, *, mode="create"):
        hold = super().hold(key, mode=mode)
        if hold is not None:
            self.given.append(hold)
        return hold


class MortalStore(FaultyStore):
    """A `FaultyStore` over a folder that leaves on disk what a killed process leaves.

    A `put` that dies leaves a temporary file with half of the bytes. After `bury`, the holds are
    files without a lock, as after the death of their process.
    """

    def __init__(self, local, **more):
        super().__init__(_Remembering(local.describe()), **more)

    def put(self, key, parts, *, if_absent=False):
        try:
            return super().put(key, parts, if_absent=if_absent)
        except SimulatedCrash:
            self._leave_half(key, b"".join(bytes(part) for part in parts))
            raise

    def _leave_half(self, key, data):
        path = self.store._path(key)
        if path.parent.is_dir():
            name = f".{path.name}.{host_id()}.{secrets.token_hex(8)}.tmp"
            path.with_name(name).write_bytes(data[: len(data) // 2])

    def sweep(self, prefix):
        with _Point(self):
            return self.store.sweep(prefix)

    def link_from(self, other, src, dst):
        with _Point(self):
            return self.store.link_from(other, src, dst)

    def bury(self):
        """Give back the locks of the dead process, and nothing else."""
        for hold in self.store.given:
            descriptor, hold._descriptor = hold._descriptor, None
            if descriptor is not None:
                close_locked(descriptor)
