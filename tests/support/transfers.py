"""A root worth moving: two experiments, weights that are shared, notes of all kinds, a parent in another."""

from __future__ import annotations

import h5py

from support.collected import line
from support.collected import save as save_with_parent
from support.roots import begin, small_root, ticking_clock
from weightslab.engine.repository.data_file import save_backup
from weightslab.engine.repository.opening import write_config_revision

FROZEN_BYTES = 80_000  # above the 64 KiB from which files are linked between roots


def family(path, *, size_bytes=48, read_only=False):
    """Make a root: experiment A with steps 1 to 3, B with steps 1 and 2 that began from step 2 of A.

    Returns: (root, hash of A, hash of B). C, which nothing came from, is there, too.
    """
    root = small_root(path, clock=ticking_clock())
    a, _ = begin(root, 0, num_samples=12)
    made = line(root, a, [1, 2, 3], size_bytes=size_bytes)
    b, _ = begin(root, 1)
    line(root, b, [1, 2], parent=made[1], size_bytes=size_bytes)
    c, _ = begin(root, 2)
    save_with_parent(root, c, 7)
    root.notes.name(a, "the first\x1b[2J")
    root.notes.tag(a, "paper", step=2)
    root.notes.add(a, "about step 3", step=3)
    root.pin(b, step=2, reason="figure")
    with h5py.File(path / "data" / "table.h5", "w") as file:
        file["x"] = [1, 2, 3]
    save_backup(root.store, b, path / "data" / "table.h5", name="table")
    write_config_revision(root.store, b, {"experiment": 1, "more": 2}, name="config")
    return root, a, b


def files_of(root, *hashes):
    """Return key -> bytes of every file of experiments, or of all of them."""
    top = root.path / "checkpoints"
    wanted = hashes or root.list_hashes()
    return {
        p.relative_to(top).as_posix(): p.read_bytes()
        for h in wanted
        for p in sorted((top / h).rglob("*"))
        if p.is_file()
    }


def statuses(report):
    """Return (experiment statuses, checkpoint statuses) as sorted sets of words."""
    return sorted({e.status for e in report.experiments}), sorted(
        {c.status for c in report.checkpoints}
    )
