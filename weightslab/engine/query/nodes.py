"""The tree of a filter: what was written, and where. Without meaning yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Comparison",
    "Every",
    "Exists",
    "Field",
    "Flag",
    "Literal",
    "Node",
    "Not",
    "Order",
    "Some",
]


@dataclass(frozen=True, slots=True)
class Field:
    """A name on the left side: `config."a.b".c` has three segments.

    Attributes:
        segments: without quotes.
        are_quoted: which of them were in quotes.
        position: of its first character in the filter.
    """

    segments: tuple[str, ...]
    are_quoted: tuple[bool, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A value on the right side.

    Attributes:
        text: as it was written, without quotes.
        is_quoted: it is a text, whatever it looks like.
        position: of its first character in the filter.
    """

    text: str
    is_quoted: bool
    position: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator value`; operators are `= != < <= > >= ~ !~ in` and `not in`."""

    field: Field
    operator: str
    literals: tuple[Literal, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Exists:
    """`exists field`."""

    field: Field


@dataclass(frozen=True, slots=True)
class Flag:
    """A field alone: it is true."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """What does not match."""

    part: Node


@dataclass(frozen=True, slots=True)
class Every:
    """What matches all parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """What matches one part or more."""

    parts: tuple[Node, ...]


Node: TypeAlias = "Comparison | Exists | Flag | Not | Every | Some"


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an order."""

    field: Field
    is_descending: bool
