"""The parts of a checkpoint that it can do without: what cannot be read of them is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import (
    CheckpointError,
    NotCanonicalError,
    NotStorableError,
    UnsafePickleError,
)
from weightslab.formats.folders import find_file, parse_object
from weightslab.formats.pickles import load_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["Parts", "as_config", "as_metrics", "plain_entries"]


class Parts:
    """Reads parts of a checkpoint folder and collects what became of them.

    Attributes:
        omitted: what is left out by intention, a line each.
        damaged: what should be there and cannot be used, a line each.
    """

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader, self._folder = reader, folder
        self.omitted: list[str] = []
        self.damaged: list[str] = []

    def pickle(self, name: str, *, may_hold_classes: bool = False) -> Any:
        """Return what a file of torch.save holds; None if there is none, or it cannot be read.

        Args:
            name: of the file.
            may_hold_classes: its trainer writes objects of classes into it; they are left out.
        """
        try:
            path = find_file(self._folder, name)
            if path is None:
                return None
            return load_pickle(self._reader.hold(path), trust=self._reader.trust)
        except UnsafePickleError as error:
            (self.omitted if may_hold_classes else self.damaged).append(_line(name, error))
        except (CheckpointError, OSError) as error:
            self.damaged.append(_line(name, error))
        return None

    def json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object; None if there is none, or it cannot be read."""
        try:
            path = find_file(self._folder, name)
            return None if path is None else parse_object(self._reader.hold(path).view, what=name)
        except (CheckpointError, OSError) as error:
            self.damaged.append(_line(name, error))
        return None


def _line(name: str, error: BaseException) -> str:
    text = str(error)
    return text if text.startswith(name) else f"{name}: {text}"


def plain_entries(
    found: Mapping[Any, Any], omitted: list[str], *, what: str = ""
) -> dict[str, Any]:
    """Return the entries that have a place in JSON; the others get a line in `omitted`."""
    from weightslab.engine.jsonform import encode

    plain: dict[str, Any] = {}
    for key, value in found.items():
        path = f"{what}.{key}" if what else str(key)
        try:
            encode(value, path=path[:200])
        except NotStorableError as error:
            omitted.append(error.message)
        else:
            plain[str(key)] = value
    return plain


def as_config(found: object, omitted: list[str], *, what: str) -> dict[str, Any] | None:
    """Return hyperparameters as a config; None if there are none, or they have no stored form."""
    from weightslab.engine.identity.config import describe_config

    if found is None:
        return None
    if not isinstance(found, dict):
        omitted.append(f"{what}: a {type(found).__name__}, not a dict")
        return None
    try:
        describe_config(found)
    except (CheckpointError, NotCanonicalError, TypeError, ValueError, RecursionError) as error:
        omitted.append(f"{what}: {error!s:.200}")
        return None
    return found


def as_metrics(found: Mapping[Any, Any]) -> dict[str, float]:
    """Return the entries that are numbers, or tensors with one number."""
    metrics: dict[str, float] = {}
    for key, value in found.items():
        is_one = getattr(value, "numel", None) is not None and value.numel() == 1
        number = value.item() if is_one else value
        if isinstance(key, str) and type(number) in (int, float):
            metrics[key] = number
    return metrics
