"""Constructor parameters and constants of library classes, and which values are left out.

Defaults of torch.nn come from a frozen table: the description of a model says what differs from
them, so a release of torch that changes one changes the hash of the models it concerns. Other
libraries, and parameters newer than the table, are asked for their signature.
"""

from __future__ import annotations

import functools
import inspect
import json
from importlib import resources
from typing import Any, Final

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.library import bare_name, class_dict, dotted_name, module_of
from weightslab.engine.identity.plain import to_plain

__all__ = ["REQUIRED", "is_default", "parameters_of", "written_default"]

REQUIRED: Final[Any] = {"$required": None}  # a parameter without a default, a constant
_SCALARS: Final = frozenset({type(None), bool, int, float, str})


@functools.lru_cache(maxsize=1)
def _frozen_table() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("torch_defaults.json").read_text("utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=4096)
def parameters_of(base: type) -> tuple[tuple[str, Any], ...]:
    """Return (name, default or `REQUIRED`) of what the body of one library class declares."""
    members = class_dict(base)
    if bare_name(base) == "Module":
        return ()
    found: dict[str, Any] = {}
    init = members.get("__init__")
    if init is not None:
        for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
            found[name] = written_default(parameter.default)
    known = _frozen_table().get(f"{module_of(base)}.{base.__qualname__}", {})
    found.update((name, default) for name, default in known.items() if name in found)
    for name in members.get("__constants__", ()):
        found.setdefault(name, REQUIRED)
    return tuple(found.items())


def written_default(default: object) -> Any:
    """Return the plain form of a default; `REQUIRED` where there is none that can be written."""
    if default is inspect.Parameter.empty:
        return REQUIRED
    if type(default) not in _SCALARS and (name := dotted_name(default)) is not None:
        return {"$name": name}
    try:
        return to_plain(default, json=True)
    except NotCanonicalError:  # an object of the library: the value is described in any case
        return REQUIRED


def is_default(value: object, default: Any) -> bool:
    """Say whether a value is the default; 1 and 1.0 are told apart, -0.0 and 0.0 as well."""
    if type(value) in _SCALARS or type(default) in _SCALARS:
        return type(value) is type(default) and repr(value) == repr(default)
    return default is not REQUIRED and _same(written_default(value), default)


def _same(left: Any, right: Any) -> bool:
    return left is not REQUIRED and json.dumps(left) == json.dumps(right)
