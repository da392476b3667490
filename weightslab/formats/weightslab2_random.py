"""The random state in a checkpoint of WeightsLab 2.0, as the tree that is restored here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["random_of"]

_WORDS: Final = 624  # of MT19937; a position beyond makes NumPy read memory that is not its own


def random_of(found: Any) -> tuple[dict[str, Any] | None, str | None]:
    """Return the tree of the generators, or None; and why it cannot be had, where there is a state.

    The states are given to generators made for it, so that whatever is not in order is known now.
    """
    from weightslab.engine.training.rng import random_tree

    if found is None:
        return None, None
    if not isinstance(found, Mapping):
        return None, f"it is a {type(found).__name__}"
    try:
        generators = {
            "python": _python(found["python_random"]),
            "numpy": _numpy(found["numpy_random"]),
            "torch": _torch(found["torch_rng"]),
        }
        return random_tree(generators), None
    except (CheckpointError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        return None, f"{type(error).__name__}: {error!s:.200}"


def _python(state: Any) -> random.Random:
    version, words, gauss = state
    if not isinstance(gauss, (float, type(None))):
        raise TypeError(f"the next gauss() is a {type(gauss).__name__}")
    made = random.Random()  # noqa: S311 - no secret depends on it
    made.setstate((version, tuple(words), gauss))
    return made


def _numpy(state: Any) -> np.random.RandomState:
    import numpy as np

    # three items in 2.0.3: the second half of a pair of gaussians is not kept, and none is due then
    name, words, position, has_gauss, gauss = (*state, 0, 0.0)[:5]
    if name != "MT19937" or len(words) != _WORDS or not 0 <= position <= _WORDS:
        raise ValueError("it is no state of NumPy's MT19937")
    made = np.random.RandomState()
    made.set_state((name, np.array(words, np.uint32), int(position), int(has_gauss), float(gauss)))
    return made


def _torch(state: Any) -> torch.Generator:
    import torch

    made = torch.Generator()
    made.set_state(torch.as_tensor(state, dtype=torch.uint8).cpu().clone())
    return made
