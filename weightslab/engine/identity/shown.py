"""Values that stand beside the identity for people: small ones as they are, large ones by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.canonical import component_digest
from weightslab.engine.identity.plain import plain_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["shown_values"]

_MAX_NODES: Final = 200  # what a person can look at; a table of 10,000 numbers is no help
_MAX_CHARS: Final = 2000


def shown_values(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return label -> kind (`constants`, `defaults`, `closure`) -> name -> plain value.

    A value of more than 200 parts or 2000 characters is `{"$large": digest}`: it can still be told
    that it changed. Functions that use nothing are left out.
    """
    return {
        label: {
            kind: {name: _shown(value) for name, value in sorted(found.items())}
            for kind, found in sorted(kinds.items())
        }
        for label, kinds in sorted(values.items())
        if kinds
    }


def _shown(value: Any) -> Any:
    return (
        value
        if _is_small(value)
        else {"$large": component_digest("value", plain_tree(value, strict=True))}
    )


def _is_small(value: Any) -> bool:
    stack, nodes, chars = [value], 0, 0
    while stack:
        item = stack.pop()
        nodes += 1
        if isinstance(item, str):
            chars += len(item)
        elif isinstance(item, dict):
            nodes += len(item)
            chars += sum(len(str(key)) for key in item)
            stack.extend(item.values())
        elif isinstance(item, list):
            if len(item) > _MAX_NODES:
                return False
            stack.extend(item)
        if nodes > _MAX_NODES or chars > _MAX_CHARS:
            return False
    return True
