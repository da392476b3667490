"""A new file anywhere: it appears whole under its name, or not at all, and replaces nothing."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from weightslab.engine.errors import AlreadyExistsError
from weightslab.engine.storage.system import NO_LINKS, folder_sync, house_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["new_file", "refuse_existing", "temporary_beside"]


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write into, which gets the name `path` at the end of the block.

    It lies beside that name until then; an error of the block removes it. Folders above are created.

    Raises: AlreadyExistsError if `path` exists, before or after the block; StorageError.
    Durability: bytes and name are on disk when the block has ended.
    """
    refuse_existing(path)
    temporary = temporary_beside(path)
    with house_errors("written", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder_sync(path.parent)


def refuse_existing(path: Path) -> None:
    """Raise if there is something called `path`, a dead link included.

    Raises: AlreadyExistsError.
    """
    if os.path.lexists(path):
        raise AlreadyExistsError(f"{path} exists", hint="choose another path; nothing is replaced")


def temporary_beside(path: Path) -> Path:
    """Return a name in the folder of `path` that nothing has."""
    return path.with_name(f".{path.name[:160]}.{secrets.token_hex(8)}.tmp")


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        refuse_existing(path)  # without links there is no call that cannot replace
        temporary.rename(path)
