"""Random generators of Python, NumPy and torch: their state as a plain tree, and back into them."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.training.plan import RestorePlan, check_class, class_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "capture_generator",
    "generator_state",
    "is_generator",
    "plan_generator_restore",
    "plan_state_restore",
]

_KINDS: Final = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    torch.Generator,
)
_PYTHON_WORDS: Final = struct.Struct("<625I")  # 624 words of MT19937 and the position in them
_LONG_ITEMS: Final = 64  # from here on as bytes; MT19937 has 624 words, the others at most 5
# A position outside makes NumPy read memory that is not its own.
_POSITIONS: Final = {"pos": 624, "buffer_pos": 4}  # MT19937; Philox4x64


def is_generator(item: object) -> bool:
    """Tell whether `item` is a random generator that this module knows."""
    return isinstance(item, _KINDS)


def capture_generator(item: Any) -> dict[str, Any]:
    """Return the state of a generator as a tree; a copy, which the generator does not change.

    Args:
        item: `random.Random`, `numpy.random.Generator`, `RandomState` or `BitGenerator` of any kind,
            `torch.Generator` of any device.
    Raises: NotStorableError for one whose state cannot be read (`random.SystemRandom`).
    """
    return {"class": class_name(item), "state": _with_tensors(generator_state(item))}


def generator_state(item: Any) -> dict[str, Any]:
    """Return the state as plain values; long arrays of words are `bytes`, little-endian.

    Raises: as `capture_generator`.
    """
    if isinstance(item, torch.Generator):
        return {"device": item.device.type, "words": item.get_state().numpy().tobytes()}
    if isinstance(item, random.Random):
        return _python_state(item)
    packed: dict[str, Any] = _packed(_numpy_state(item))
    return packed


def _with_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tensors(entry) for key, entry in value.items()}
    if isinstance(value, bytes):
        return torch.frombuffer(bytearray(value), dtype=torch.uint8)
    return value


def plan_generator_restore(item: Any, saved: Any) -> RestorePlan:
    """Check that a saved state is one of the same kind of generator; nothing is changed.

    Raises: StateMismatchError.
    """
    what = class_name(item)
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise StateMismatchError(f"the saved state of {what} is not in order")
    check_class(saved.get("class"), what, hint="leave its state out")
    return plan_state_restore(item, saved["state"])


def plan_state_restore(item: Any, state: Any) -> RestorePlan:
    """Check that what `generator_state` returned, with tensors for bytes, fits; nothing is changed.

    The state is given to another generator of the kind first, so that whatever it refuses is known.

    Raises: StateMismatchError.
    """
    what = class_name(item)
    try:
        return RestorePlan(what, _ready(item, state))
    except StateMismatchError:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise StateMismatchError(f"the saved state of {what} is not in order: {error}") from error


def _ready(item: Any, state: Any) -> Callable[[], object]:
    """Return what sets the state, once another generator has taken it."""
    if not isinstance(state, dict):
        raise TypeError(f"it is a {type(state).__name__}")
    if isinstance(item, torch.Generator):
        device, words = item.device, state["words"].clone()
        if state["device"] != device.type:
            raise StateMismatchError(
                f"the checkpoint has a generator of the device {state['device']}, not {device.type}",
                hint="make it on the device it was saved from",
            )
        torch.Generator(device=device).set_state(words)
        return lambda: item.set_state(words)
    if isinstance(item, random.Random):
        numbers = _PYTHON_WORDS.unpack(state["words"].numpy().tobytes())
        found = (state["version"], numbers, state["gauss"])
        random.Random().setstate(found)  # noqa: S311 - no secret depends on it
        return lambda: item.setstate(found)
    return _ready_numpy(item, state)


# ---------------------------------------------------------------- Python
def _python_state(item: random.Random) -> dict[str, Any]:
    try:
        version, words, gauss = item.getstate()
        packed = _PYTHON_WORDS.pack(*words)
    except (NotImplementedError, TypeError, ValueError, struct.error) as error:
        raise NotStorableError(
            f"the state of a {class_name(item)} cannot be read", hint="use random.Random(seed)"
        ) from error
    return {"version": version, "words": packed, "gauss": gauss}


# ---------------------------------------------------------------- NumPy
def _numpy_state(item: Any) -> dict[str, Any]:
    if isinstance(item, np.random.RandomState):
        found: Any = item.get_state(legacy=False)
    else:
        found = getattr(item, "bit_generator", item).state
    if not isinstance(found, dict):
        raise NotStorableError(f"the state of a {class_name(item)} is not a dict")
    return found


def _packed(value: Any) -> Any:
    """Replace arrays by their bytes, or by lists of numbers where they are short."""
    if isinstance(value, dict):
        return {key: _packed(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.size >= _LONG_ITEMS else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _ready_numpy(item: Any, state: dict[str, Any]) -> Callable[[], object]:
    kind: Any = type(getattr(item, "bit_generator", getattr(item, "_bit_generator", item)))
    holder = kind() if item.__class__ is kind else type(item)(kind())
    now = _numpy_state(holder)
    if state.get("bit_generator") != now["bit_generator"]:
        raise StateMismatchError(
            f"the checkpoint has the bit generator {state.get('bit_generator')!r:.60}, "
            f"not {now['bit_generator']}",
            hint="make the generator with the bit generator it was saved with",
        )
    found = _unpacked(state, now)
    _set_numpy(holder, found)
    return lambda: _set_numpy(item, found)


def _set_numpy(item: Any, state: dict[str, Any]) -> None:
    if isinstance(item, np.random.RandomState):
        item.set_state(state)
    else:
        getattr(item, "bit_generator", item).state = state


def _unpacked(saved: Any, like: Any, name: str = "state") -> Any:
    """Return a saved value in the form that `like` has.

    Raises: ValueError naming what differs.
    """
    if isinstance(like, dict):
        if not isinstance(saved, dict) or set(saved) != set(like):
            raise ValueError(f"{name} has other entries")
        return {key: _unpacked(saved[key], value, key) for key, value in like.items()}
    if isinstance(like, np.ndarray):
        if isinstance(saved, torch.Tensor):
            array = np.frombuffer(saved.numpy().tobytes(), like.dtype)
        else:
            array = np.array(saved, like.dtype)
        if array.shape != like.shape:
            raise ValueError(f"{name} has the shape {list(array.shape)}, not {list(like.shape)}")
        return array
    if type(saved) is not type(like.item() if isinstance(like, np.generic) else like):
        raise ValueError(f"{name} is a {type(saved).__name__}, not a {type(like).__name__}")
    if name in _POSITIONS and not 0 <= saved <= _POSITIONS[name]:
        raise ValueError(f"{name} is {saved}, not 0 to {_POSITIONS[name]}")
    return saved
