"""The result of reading one piece of user code; stdlib only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightslab.engine.identity.canonical import Tree
    from weightslab.engine.identity.effects import Effects

__all__ = ["CodeForm", "Facts", "Resolver"]

# resolves a dotted global ("F", "relu") to (tree that stands for it, number of names used up)
Resolver = Callable[[tuple[str, ...]], "tuple[Tree, int]"]


@dataclass(slots=True)
class Facts:
    """What a function touches, found while it is serialised.

    Attributes:
        reads: attribute names read from anything.
        dynamic: `getattr` with a computed name, `vars`, or `__dict__`: any attribute may be read.
        uses_super: calls `super`.
        returns_value: has a `return` with something other than None, or yields.
        in_place: assigns through an argument, or calls a method whose name ends in `_`.
        imports: (module, names after it) used of imports while running; relative ones start with
            dots.
    """

    reads: set[str] = field(default_factory=set)
    dynamic: bool = False
    uses_super: bool = False
    returns_value: bool = False
    in_place: bool = False
    imports: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def add(self, other: Facts) -> None:
        """Take over what another function reads."""
        self.reads |= other.reads
        self.dynamic |= other.dynamic
        self.uses_super |= other.uses_super


@dataclass(frozen=True, slots=True)
class CodeForm:
    """One function in canonical form.

    Attributes:
        tree: canonical tree.
        facts: what it touches.
        effects: what it changes.
        source: its text; empty for byte-code.
        weak: the tree holds byte-code, which differs between Python versions.
    """

    tree: Tree
    facts: Facts
    effects: Effects
    source: str
    weak: bool
