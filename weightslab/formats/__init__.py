"""Foreign and old layouts, one file each: what other systems wrote comes in as experiments.

from weightslab.formats import import_root
print(import_root("lightning_logs/version_0/checkpoints", "root_experiment", dry_run=True))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightslab.formats.importing import import_root
    from weightslab.formats.report import ImportReport

__all__ = ["ImportReport", "import_root"]


def __getattr__(name: str) -> Any:
    if name == "import_root":
        from weightslab.formats.importing import import_root

        return import_root
    if name == "ImportReport":
        from weightslab.formats.report import ImportReport

        return ImportReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
