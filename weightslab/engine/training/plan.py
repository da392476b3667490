"""A restore that was checked to fit, and is carried out later."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import CheckpointError, StateMismatchError
from weightslab.engine.training.copying import copy_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["RestorePlan", "apply_all", "check_class", "class_name", "own_copy"]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A restore that was checked to fit; `apply()` carries it out.

    Attributes:
        what: the object, in words.
        pairs: (live tensor, saved tensor): what is copied, before the object itself is told.
        loaded: entries that will have the values of the checkpoint.
        missing: entries of the live object that keep their value (only of restores that are not
            strict).
        unexpected: entries of the checkpoint that are left out (only of restores that are not
            strict).
        changes: entries of both that do not fit each other -> how; they keep their value (only of
            restores that are not strict).
        casts: loaded entries that are converted to another dtype -> how.
    """

    what: str
    _finish: Callable[[], object]
    pairs: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changes: dict[str, str] = field(default_factory=dict)
    casts: dict[str, str] = field(default_factory=dict)

    def apply(self) -> None:
        """Copy the state into the live object.

        Raises: CheckpointError if code of the object itself fails midway: it may then hold a part of
            the new state, and the message says so.
        """
        apply_all([self])

    def finish(self) -> None:
        """Tell the object, after `pairs` were copied.

        Raises: as `apply`.
        """
        try:
            self._finish()
        except Exception as error:  # load_state_dict is code of the user, or of a library
            raise CheckpointError(
                f"{self.what} failed while it took its state, after everything had been checked to "
                f"fit: {type(error).__name__}: {error}",
                hint="it may hold a part of the new state now; make it anew, or load again",
            ) from error


def apply_all(plans: Collection[RestorePlan]) -> None:
    """Carry out several plans; their tensors are copied together, in several threads.

    Raises: as `RestorePlan.apply`.
    """
    copy_tensors(pair for plan in plans for pair in plan.pairs)
    for plan in plans:
        plan.finish()


def class_name(item: object) -> str:
    """Return `module.Class` of an object."""
    return f"{type(item).__module__}.{type(item).__qualname__}"


def check_class(saved: object, live: str, *, hint: str) -> None:
    """Compare top-level package and name: libraries move classes between their modules.

    Of an imported state the class may be unknown (None): what fits it is then told by its content.

    Raises: StateMismatchError naming both; `hint` says what else can be done.
    """
    if saved is None:
        return
    parts = [str(name).split(".") for name in (saved, live)]
    if len({(path[0], path[-1]) for path in parts}) > 1:
        raise StateMismatchError(
            f"the checkpoint holds the state of {saved}, not of {live}",
            hint=f"make the one that was saved, or {hint}",
        )


def own_copy(tree: Any, places: Mapping[int, torch.Tensor] | None = None) -> Any:
    """Return the tree with its tensors cloned; one tensor in two places stays one.

    Objects keep the tensors that they are given, and those of a checkpoint lie in a mapped file.

    Args:
        tree: dicts, lists and tuples with tensors in them.
        places: id of a tensor in `tree` -> what stands in its place instead of a clone.
    """
    found: dict[int, torch.Tensor] = {}
    _collect(tree, found)
    kept = dict(places or {})
    rest = {key: tensor for key, tensor in found.items() if key not in kept}
    kept.update(zip(rest, _clones(list(rest.values())), strict=True))
    return _replaced(tree, kept)


def _clones(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Clone, in threads where it is much: most of the time goes into page faults of fresh memory.

    The memory is taken in this thread: the allocator gives threads arenas of their own, and what
    this thread freed before could not be used again (3 x slower).
    """
    clones = [torch.empty_like(tensor) for tensor in tensors]
    copy_tensors(zip(clones, tensors, strict=True))
    return clones


def _collect(tree: Any, found: dict[int, torch.Tensor]) -> None:
    if isinstance(tree, torch.Tensor):
        found[id(tree)] = tree
    elif isinstance(tree, dict):
        for value in tree.values():
            _collect(value, found)
    elif type(tree) in (list, tuple):
        for value in tree:
            _collect(value, found)


def _replaced(tree: Any, clones: dict[int, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        return clones[id(tree)]
    if isinstance(tree, Counter):  # made of pairs, it would count the pairs
        return type(tree)({k: _replaced(v, clones) for k, v in tree.items()})
    if isinstance(tree, dict):
        return type(tree)((k, _replaced(v, clones)) for k, v in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(_replaced(v, clones) for v in tree)
    return tree
