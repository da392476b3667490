"""A verb of a class whose function lies in a room of its own, imported when it is first looked at.

`CheckpointRoot` has verbs for everything there is; who lists a root must not pay for comparing,
auditing and collecting: all of them together take 0.4 s to import, opening a root 0.1 s.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Verb"]


class Verb:
    """Stands for `function` of `module` until it is looked at, and then is replaced by it.

    Type checkers see the function itself: the class names it below `if TYPE_CHECKING`.

    Args:
        module: dotted, below `weightslab.engine`; the function has the name of the attribute.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember where it stands."""
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the function, bound to `instance` unless the class was asked. Thread-safe."""
        function = getattr(import_module(f"weightslab.engine.{self._module}"), self._name)
        setattr(self._owner, self._name, function)  # twice at once does no harm
        return function.__get__(instance, owner)
