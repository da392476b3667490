"""Random states of other trainers, as the tree that a load restores them from."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.training.generators import generator_state
from weightslab.engine.training.rng import pack_random

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["pack_states"]

_NEEDED: Final = ("python", "numpy", "torch")
_NUMPY_WORDS: Final = 624  # of MT19937; a position outside makes NumPy read memory not its own


def pack_states(states: Mapping[str, Any], omitted: list[str]) -> dict[str, Any] | None:
    """Return the random state as `random_tree` does; None if it is not whole.

    Each state goes through a generator of its kind, so that only what can be restored is taken.

    Args:
        states: `python`, `numpy`, `torch` (and `cuda`, a list) -> state as `random.getstate`,
            `numpy.random.get_state` and `torch.get_rng_state` return it; empty if there is none.
        omitted: gets a line if there is something that cannot be used.
    """
    if not states:
        return None
    missing = [name for name in _NEEDED if states.get(name) is None]
    if missing:
        omitted.append(f"random state: there is none of {', '.join(missing)}")
        return None
    try:
        found: dict[str, Any] = {
            "python": _python(states["python"]),
            "numpy": _numpy(states["numpy"]),
            "torch": _torch(states["torch"], "cpu"),
        }
        if states.get("cuda"):
            found["cuda"] = [_torch(each, "cuda") for each in states["cuda"]]
    except Exception as error:  # noqa: BLE001 - what generators make of a state that is not theirs
        omitted.append(f"random state: {type(error).__name__}: {error!s:.200}")
        return None
    return pack_random(found)


def _python(state: Any) -> dict[str, Any]:
    version, words, gauss = state
    generator = random.Random()  # noqa: S311 - no secret depends on it
    generator.setstate((version, tuple(words), gauss))
    return generator_state(generator)


def _numpy(state: Any) -> dict[str, Any]:
    kind, words, position, has_gauss, gauss = state
    if kind != "MT19937" or not 0 <= int(position) <= _NUMPY_WORDS:
        raise ValueError(f"a {kind!r:.20} generator of NumPy at {position!r:.20}")
    generator = np.random.RandomState()
    generator.set_state((kind, np.asarray(words, np.uint32), int(position), has_gauss, gauss))
    return generator_state(generator)


def _torch(state: Any, device: str) -> dict[str, Any]:
    words = state if isinstance(state, torch.Tensor) else torch.tensor(state, dtype=torch.uint8)
    if words.dtype != torch.uint8 or words.dim() != 1:
        raise TypeError(f"the state of a torch generator is {words.dtype}, not torch.uint8")
    if device == "cpu":
        torch.Generator().set_state(words.clone())
    return {"device": device, "words": words.contiguous().numpy().tobytes()}
