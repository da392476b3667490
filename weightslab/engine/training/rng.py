"""The random state of this process: Python, NumPy, torch on the CPU and on each CUDA device.

    tree = capture_random()
    plan_random_restore(tree).apply()    # last of all: restoring other things may draw numbers

The global generators are generators like any other, see `generators`; but all their words stand in
one tensor of bytes, because three small tensors cost a small save three times as much.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.errors import StateMismatchError
from weightslab.engine.training.generators import generator_state, plan_state_restore
from weightslab.engine.training.plan import RestorePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["capture_random", "pack_random", "plan_random_restore", "random_tree"]

_GLOBAL: Final[Mapping[str, Callable[[], Any]]] = {
    "python": lambda: random.getstate.__self__,  # type: ignore[attr-defined] # a bound method
    "numpy": lambda: np.random.get_state.__self__,  # type: ignore[attr-defined] # a bound method
    "torch": lambda: torch.default_generator,
}


def capture_random() -> dict[str, Any]:
    """Return the state of all global random generators as a tree; 0.1 ms, most of it NumPy's.

    Generators of CUDA devices are in it only once CUDA is in use: asking would begin to use it, and
    until then nothing can have drawn from them.
    """
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.default_generators if in_use else ()
    return random_tree({name: find() for name, find in _GLOBAL.items()}, cuda)


def random_tree(
    generators: Mapping[str, Any], cuda: Sequence[torch.Generator] = ()
) -> dict[str, Any]:
    """Return the tree that restores the global generators to the state of these.

    Args:
        generators: `python`, `numpy` (a RandomState of MT19937) and `torch`.
        cuda: those of the devices, if there are any.
    """
    states: dict[str, Any] = {name: generator_state(found) for name, found in generators.items()}
    if cuda:
        states["cuda"] = [generator_state(each) for each in cuda]
    return pack_random(states)


def pack_random(states: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of a random state.

    Args:
        states: `python`, `numpy`, `torch` and, as a list, `cuda` -> what `generator_state` returned.
    """
    words = bytearray()
    tree: dict[str, Any] = _gathered(states, words)
    return tree | {"bytes": torch.frombuffer(words, dtype=torch.uint8)}


def _gathered(value: Any, words: bytearray) -> Any:
    """Append all bytes in a tree to `words`; how many they are stands in their place."""
    if isinstance(value, dict):
        return {key: _gathered(entry, words) for key, entry in value.items()}
    if isinstance(value, list):
        return [_gathered(entry, words) for entry in value]
    if not isinstance(value, bytes):
        return value
    words += value
    return {"start": len(words) - len(value), "end": len(words)}


def _spread(value: Any, words: torch.Tensor) -> Any:
    """Put the bytes back, as tensors, where `_gathered` found them.

    Raises: TypeError, ValueError for places that are not in `words`.
    """
    if isinstance(value, list):
        return [_spread(entry, words) for entry in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {"start", "end"}:
        return {key: _spread(entry, words) for key, entry in value.items()}
    if not 0 <= value["start"] <= value["end"] <= words.numel():
        raise ValueError(f"the bytes {value['start']} to {value['end']} are not there")
    return words[value["start"] : value["end"]]


def plan_random_restore(saved: Any) -> RestorePlan:
    """Check that a saved random state can be taken; nothing is changed.

    The state of a CUDA device that is not there is left out, and named in `plan.unexpected`; a device
    that the checkpoint does not know keeps its state, and is named in `plan.missing`.

    Raises: StateMismatchError naming the generator whose state is absent or not in order.
    """
    try:
        saved = _spread(saved, saved["bytes"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StateMismatchError(f"the saved random state is not in order: {error}") from error
    if not set(_GLOBAL) <= set(saved):
        raise StateMismatchError("the saved random state is not in order")
    plans = [_plan(name, find(), saved[name]) for name, find in _GLOBAL.items()]
    states = saved.get("cuda", [])
    if not isinstance(states, list):
        raise StateMismatchError("the saved random state of cuda is not in order")
    devices = _cuda_generators() if states else ()
    plans += [
        _plan(f"cuda:{index}", live, state)
        for index, (live, state) in enumerate(zip(devices, states, strict=False))
    ]

    def restore() -> None:
        for plan in plans:
            plan.finish()

    return RestorePlan(
        "the random state",
        restore,
        loaded=(*_GLOBAL, *(f"cuda:{n}" for n in range(min(len(devices), len(states))))),
        missing=tuple(f"cuda:{n}" for n in range(len(states), len(devices))),
        unexpected=tuple(f"cuda:{n}" for n in range(len(devices), len(states))),
    )


def _plan(name: str, generator: Any, saved: Any) -> RestorePlan:
    try:
        return plan_state_restore(generator, saved)
    except StateMismatchError as error:
        raise StateMismatchError(f"random state of {name}: {error}") from error


def _cuda_generators() -> tuple[Any, ...]:
    """Return the generators of the CUDA devices; a state is there for them, so CUDA begins here."""
    if not torch.cuda.is_available():
        return ()
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return tuple(torch.cuda.default_generators)
