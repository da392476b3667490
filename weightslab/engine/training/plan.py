"""A restore that was checked to fit, and is carried out later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RestorePlan", "class_name", "own_copy"]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A restore that was checked to fit; `apply()` carries it out.

    Attributes:
        what: the object, in words.
        missing: entries of the live object that keep their value (only of restores that are not
            strict).
        unexpected: entries of the checkpoint that are left out (only of restores that are not
            strict).
    """

    what: str
    _apply: Callable[[], object]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def apply(self) -> None:
        """Copy the state into the live object.

        Raises: CheckpointError if code of the object itself fails midway: it may then hold a part of
            the new state, and the message says so.
        """
        try:
            self._apply()
        except Exception as error:
            raise CheckpointError(
                f"{self.what} failed while it took its state, after everything had been checked to "
                f"fit: {type(error).__name__}: {error}",
                hint="it may hold a part of the new state now; make it anew, or load again",
            ) from error


def class_name(item: object) -> str:
    """Return `module.Class` of an object."""
    return f"{type(item).__module__}.{type(item).__qualname__}"


def own_copy(tree: Any) -> Any:
    """Return the tree with its tensors cloned; one tensor in two places stays one.

    Objects keep the tensors that they are given, and those of a checkpoint lie in a mapped file.
    """
    return _own_copy(tree, {})


def _own_copy(tree: Any, cloned: dict[int, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        if id(tree) not in cloned:
            cloned[id(tree)] = tree.clone()
        return cloned[id(tree)]
    if isinstance(tree, dict):
        return type(tree)((k, _own_copy(v, cloned)) for k, v in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(_own_copy(v, cloned) for v in tree)
    return tree
