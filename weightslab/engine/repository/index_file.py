"""Where the index of a root lies: a file in the user's cache folder, one per host and root.

`WEIGHTSLAB_CATALOG` moves it: a folder, or `off` for none. Files there may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from weightslab.engine.storage.holder import host_id

__all__ = ["INDEX_VARIABLE", "find_index_path", "remove_index"]

logger = logging.getLogger(__name__)
INDEX_VARIABLE: Final = "WEIGHTSLAB_CATALOG"
INDEX_VERSION: Final = 2  # in the name, so that two versions of the package never share a file
_UNUSED_SECONDS: Final = (
    90 * 24 * 3600
)  # roots come and go; what nobody opened for so long is swept
_ENDINGS: Final = ("", "-wal", "-shm", "-journal")


def find_index_path(root: Path) -> Path | None:
    """Return the file for a root, its folder made; None where there is to be none, or can be none.

    The name holds the path of the root and the folder that lies there now, so that a root that
    was moved or replaced begins anew.
    """
    chosen = os.environ.get(INDEX_VARIABLE, "")
    if chosen.lower() == "off":
        return None
    try:
        folder = Path(chosen) if chosen else _cache_folder()
        found = root.stat()
        real = root.resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.info("no catalog is kept for %s: %s", root, error)
        return None
    facts = f"{host_id()}\0{real}\0{found.st_dev}\0{found.st_ino}"
    name = hashlib.sha256(facts.encode(errors="surrogatepass")).hexdigest()[:24]
    path = folder / f"{name}.v{INDEX_VERSION}.sqlite"
    if not path.exists():
        _sweep(folder)
    return path


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_path("weightslab", appauthor=False)) / "catalogs"


def remove_index(path: Path) -> None:
    """Remove an index file and what belongs to it; what cannot be removed stays."""
    try:
        for ending in _ENDINGS:
            path.with_name(path.name + ending).unlink(missing_ok=True)
    except OSError as error:
        logger.info("the catalog %s stays: %s", path, error)


def _sweep(folder: Path) -> None:
    """Remove the indexes that nobody has used for 90 days."""
    limit = time.time() - _UNUSED_SECONDS
    for path in folder.glob("*.sqlite"):
        with suppress(FileNotFoundError):  # another process was faster
            if path.stat().st_mtime < limit:
                remove_index(path)
