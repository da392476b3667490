"""What reached code changes while it runs: objects, global names and attribute names.

What is changed is state: another run of the same model finds other content in it, so it cannot be
part of what the model is.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from weightslab.engine.identity.effects import Effects, Passed, effects_of
from weightslab.engine.identity.library import home_of, is_library, module_of
from weightslab.engine.identity.source import find_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightslab.engine.identity.effects import Chain

__all__ = ["NOTHING", "Changes", "Written", "changes_itself", "step"]

NOTHING = object()
_MAX_CALLS = 8  # how many calls deep an argument is followed


class Written:
    """The attributes that the methods of one class change.

    Args:
        effects: of the methods.
        changes: what all reached code changes on objects of any class.
    """

    def __init__(self, effects: Iterable[Effects], changes: Changes, extra: Iterable[str]) -> None:
        self._changes = changes
        self._names: set[str] = set()
        self._mutated: set[str] = set(extra)
        self._prefixes: set[str] = set()
        for one in effects:
            self._names |= one.writes
            self._mutated |= one.mutates
            self._prefixes |= one.prefixes

    def hides(self, name: str, value: Any) -> bool:
        """Say whether an attribute is state. An object with methods of its own answers for itself."""
        if name in self._names or name in self._changes.attributes:
            return True
        if name in self._mutated or name in self._changes.mutated:
            return not changes_itself(value)
        return name.startswith(tuple(self._prefixes))


def changes_itself(value: Any) -> bool:
    """Say whether an object is a user's, so that its own methods tell which part of it is state."""
    kind = type(value)
    return not is_library(module_of(kind)) and not issubclass(kind, (dict, list, set, bytearray))


class Changes:
    """Collects what functions change; says of globals and objects whether something changes them.

    `is_stale`: something was taken for a constant before it was seen to change; whoever described
    it has to begin again, with these changes known.
    """

    def __init__(self, known: Changes | None = None) -> None:
        self.attributes: set[str] = set(known.attributes) if known else set()
        self.mutated: set[str] = set(known.mutated) if known else set()
        self._objects: dict[int, Any] = dict(known._objects) if known else {}  # kept: ids stay true
        self._names: set[tuple[int, str]] = set(known._names) if known else set()
        self._taken: set[Any] = set()
        self.is_stale = False

    # ------------------------------------------------------------ questions
    def changes_name(self, space: Mapping[str, Any], name: str) -> bool:
        """Say whether reached code assigns the global `name` of this namespace."""
        self._taken.add((id(space), name))
        return (id(space), name) in self._names

    def changes_object(self, value: Any) -> bool:
        """Say whether reached code changes this very object."""
        self._taken.add(id(value))
        return id(value) in self._objects

    def hides(self, name: str, value: Any) -> bool:
        """Say whether an attribute of this name is changed from outside its class."""
        self._taken.add(name)
        return name in self.attributes or (name in self.mutated and not changes_itself(value))

    # ------------------------------------------------------------ answers
    def note(self, function: types.FunctionType, effects: Effects) -> set[str]:
        """Take in what a function changes; return attributes of its owner that calls change."""
        names = function.__qualname__.rpartition("<locals>.")[2]
        self._add_attributes(effects.foreign, effects.foreign_mutates)
        if "." not in names:  # no method: its first parameter is anybody
            self._add_attributes(effects.writes, effects.mutates)
        for chain in effects.stored:
            self._store(function, chain)
        for chain in effects.changed:
            self._change(_find(function, chain))
        own: set[str] = set()
        for passed in effects.passed:
            if passed.value[0] in _own_names(function) and passed.value[0] != effects.owner:
                continue
            if _changes_argument(function, passed, _MAX_CALLS):
                if passed.value[0] == effects.owner:
                    own.update(passed.value[1:2])
                else:
                    self._change(_find(function, passed.value))
        return own

    def _add_attributes(self, assigned: set[str], mutated: set[str]) -> None:
        self.is_stale |= not self._taken.isdisjoint(assigned - self.attributes)
        self.is_stale |= not self._taken.isdisjoint(mutated - self.mutated)
        self.attributes |= assigned
        self.mutated |= mutated

    def _store(self, function: types.FunctionType, chain: Chain) -> None:
        space: Any = function.__globals__
        if len(chain) > 1:
            owner = _find(function, chain[:-1])
            if type(owner) is not types.ModuleType:
                return  # an attribute of an object: noted by its name
            space = vars(owner)
        key = (id(space), chain[-1])
        self.is_stale |= key in self._taken and key not in self._names
        self._names.add(key)

    def _change(self, value: Any) -> None:
        if value is NOTHING or type(value) is types.ModuleType or changes_itself(value):
            return
        self.is_stale |= id(value) in self._taken and id(value) not in self._objects
        self._objects[id(value)] = value


def step(value: Any, name: str) -> Any:
    """Follow one dot through a module; NOTHING where there is none to follow."""
    return vars(value).get(name, NOTHING) if type(value) is types.ModuleType else NOTHING


def _own_names(function: types.FunctionType) -> tuple[str, ...]:
    return (*function.__code__.co_varnames, *function.__code__.co_cellvars)


def _find(function: types.FunctionType, chain: Chain) -> Any:
    """Return the object that a chain names from inside a function, NOTHING for its own names."""
    code, first = function.__code__, chain[0]
    if first in _own_names(function):
        return NOTHING
    if first in code.co_freevars:
        cell = (function.__closure__ or ())[code.co_freevars.index(first)]
        try:
            value = cell.cell_contents
        except ValueError:  # never bound
            return NOTHING
    else:
        value = function.__globals__.get(first, NOTHING)
    for name in chain[1:]:
        value = step(value, name)
    return value


def _changes_argument(function: types.FunctionType, passed: Passed, depth: int) -> bool:
    """Say whether the called function changes what it is handed, as far as its code shows."""
    callee = _find(function, passed.callee)
    if type(callee) is not types.FunctionType or is_library(home_of(callee)) or not depth:
        return False
    found = find_source(callee.__code__)
    name = _parameter_at(callee.__code__, passed.place)
    if found is None or name is None:
        return False
    effects = effects_of(found.node)
    if (name,) in effects.changed:
        return True
    return any(
        inner.value == (name,) and _changes_argument(callee, inner, depth - 1)
        for inner in effects.passed
    )


def _parameter_at(code: types.CodeType, place: int | str) -> str | None:
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if isinstance(place, str):
        return place if place in names else None
    if place < code.co_argcount:
        return names[place]
    return None
