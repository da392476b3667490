"""Configs of any number of sides as one table: what differs, and where the sides agree nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.comparing.results import Row, plain
from weightslab.engine.identity.config import DEFAULT_EXCLUDED
from weightslab.engine.identity.configdiff import MISSING, differences_of_many

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["config_table"]


def config_table(
    configs: Sequence[dict[str, Any] | None], excluded: Sequence[Sequence[str]]
) -> tuple[Row, ...]:
    """Return a row for each outermost key whose values are not the same on all sides, sorted by key.

    Args:
        configs: by side; None for one that could not be read.
        excluded: by side: keys that do not count, besides those that never do.
    """
    readable = [at for at, config in enumerate(configs) if config is not None]
    if len(readable) < 2:  # noqa: PLR2004 - two sides make a comparison
        return ()
    hidden = set(DEFAULT_EXCLUDED).union(*(excluded[at] for at in readable))
    rows = []
    for path, values in differences_of_many([configs[at] for at in readable]):
        found = dict(zip(readable, values, strict=True))
        sides = [found.get(at) for at in range(len(configs))]
        rows.append(
            Row(
                path=path,
                values=tuple(None if v is MISSING else plain(v) for v in sides),
                present=tuple(
                    found[at] is not MISSING if at in found else None for at in range(len(configs))
                ),
                counts=not any(path == key or path.startswith(f"{key}.") for key in hidden),
            )
        )
    return tuple(sorted(rows, key=lambda row: row.path))
