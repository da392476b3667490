"""The filter language: from text to a tree. Pure; the parser is made when the first filter is read.

metric.loss < 0.1 and config.optimizer.lr in (1e-3, 3e-4) and not (tag = draft or damaged)
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FilterError
from weightslab.engine.query.nodes import (
    Comparison,
    Every,
    Exists,
    Field,
    Flag,
    Literal,
    Not,
    Order,
    Some,
)

if TYPE_CHECKING:
    from lark import Lark, Token

    from weightslab.engine.query.nodes import Node

__all__ = ["parse_filter", "parse_order"]

MAX_CHARACTERS: Final = (
    10_000  # of a filter; SQLite refuses expressions beyond some depth and width
)
MAX_DEPTH: Final = 100  # of parentheses and `not`

_GRAMMAR: Final = r"""
?start: some
?some: every (_OR every)*
?every: negation (_AND negation)*
?negation: _NOT negation -> not_ | atom
?atom: "(" some ")" -> group
    | WORD OPERATOR WORD -> comparison
    | WORD _IN "(" WORD ("," WORD)* ")" -> in_
    | WORD _NOT _IN "(" WORD ("," WORD)* ")" -> not_in
    | _EXISTS (WORD | "(" WORD ")") -> exists
    | _MISSING (WORD | "(" WORD ")") -> missing
    | WORD -> flag
_OR: "or"i
_AND: "and"i
_NOT: "not"i
_IN: "in"i
_EXISTS: "exists"i
_MISSING: "missing"i
OPERATOR: "==" | "=" | "!=" | "<=" | "<" | ">=" | ">" | "!~" | "~"
WORD: /(?:[^\s()=!<>~,"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+/is
%ignore /\s+/
"""
_SEGMENT: Final = re.compile(r"""([^."']+)|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'""", re.DOTALL)
_QUOTED: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ORDER: Final = re.compile(
    r"""\s*([-+]?)\s*((?:[^\s,"'+-]|(?<!^)[+-]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+)\s*(,|\Z)""",
    re.DOTALL,
)


@lru_cache(maxsize=256)
def parse_filter(text: str) -> Node:
    """Return the tree of a filter. O(characters).

    Raises: TypeError; FilterError that points at the place.
    """
    if not isinstance(text, str):
        raise TypeError(f"a filter is a str such as 'step > 100', not {type(text).__name__}")
    if not text.strip():
        raise FilterError("the filter is empty", text=text, position=0, hint="try 'step > 100'")
    if len(text) > MAX_CHARACTERS:
        raise FilterError(
            f"the filter has {len(text):,} characters; {MAX_CHARACTERS:,} are allowed",
            text=text,
            position=MAX_CHARACTERS,
        )
    _check_depth(text)
    return _parse(text)


def _check_depth(text: str) -> None:
    depth = 0
    for found in re.finditer(r"[()]", _QUOTED.sub(lambda m: "." * len(m[0]), text)):
        depth += 1 if found[0] == "(" else -1
        if depth > MAX_DEPTH:
            raise FilterError(
                f"more than {MAX_DEPTH} parentheses are open", text=text, position=found.start()
            )


def _parse(text: str) -> Node:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        found: Any = _parser().parse(text)
        return _Builder(text).build(found)
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        what = "this quote is not closed" if text[position] in "\"'" else None
        what = what or f"{text[position]!r} cannot stand here"
        raise FilterError(what, text=text, position=position) from None
    except UnexpectedToken as error:
        raise _unexpected(text, error.token, error.accepts or error.expected) from None
    except UnexpectedInput as error:
        position = min(error.pos_in_stream or 0, len(text))
        raise FilterError("this cannot be read", text=text, position=position) from None


@lru_cache(maxsize=1)
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


_WORDS: Final = {
    "WORD": "a name or a value",
    "OPERATOR": "an operator such as '<'",
    "_OR": "'or'",
    "_AND": "'and'",
    "_NOT": "'not'",
    "_IN": "'in (...)'",
    "_EXISTS": "'exists'",
    "_MISSING": "'missing'",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}


def _unexpected(text: str, token: Token, expected: set[str]) -> FilterError:
    is_end = token.type == "$END"
    position = len(text.rstrip()) if is_end else int(token.start_pos or 0)
    told = [word for name, word in _WORDS.items() if name in expected]
    found = "the filter ends here" if is_end else f"{str(token)!r:.60} cannot stand here"
    return FilterError(f"{found}; expected {' or '.join(told)}", text=text, position=position)


class _Builder:
    """Makes nodes of what the parser returns."""

    def __init__(self, text: str) -> None:
        self._text = text

    def build(self, tree: Any, depth: int = 0) -> Node:
        """Return the node of a parse tree."""
        kind, parts = tree.data, tree.children
        if depth > 2 * MAX_DEPTH:
            raise FilterError(
                "the filter is nested too deeply", text=self._text, position=_position(tree)
            )
        if kind in ("some", "every"):
            nodes = tuple(self.build(part, depth + 1) for part in parts)
            return Some(nodes) if kind == "some" else Every(nodes)
        if kind in ("not_", "group"):
            node = self.build(parts[0], depth + 1)
            return Not(node) if kind == "not_" else node
        return self._atom(str(kind), parts)

    def _atom(self, kind: str, parts: list[Token]) -> Node:
        field = read_field(self._text, str(parts[0]), int(parts[0].start_pos or 0))
        if kind == "flag":
            return Flag(field)
        if kind in ("exists", "missing"):
            return Exists(field) if kind == "exists" else Not(Exists(field))
        if kind == "comparison":
            operator = str(parts[1]).replace("==", "=")
            position = int(parts[1].start_pos or 0)
            return Comparison(field, operator, (self._literal(parts[2]),), position)
        operator = "in" if kind == "in_" else "not in"
        return Comparison(field, operator, tuple(map(self._literal, parts[1:])), field.position)

    def _literal(self, token: Token) -> Literal:
        text, position = str(token), int(token.start_pos or 0)
        if _QUOTED.fullmatch(text):
            return Literal(_unescaped(text[1:-1]), is_quoted=True, position=position)
        if '"' in text or "'" in text:
            raise FilterError(
                "a value is in quotes as a whole, or not at all", text=self._text, position=position
            )
        return Literal(text, is_quoted=False, position=position)


def _position(tree: Any) -> int:
    while getattr(tree, "children", None):
        tree = tree.children[0]
    return int(getattr(tree, "start_pos", 0) or 0)


def read_field(text: str, word: str, position: int) -> Field:
    """Return the field that a word of a filter is.

    Raises: FilterError.
    """
    segments, are_quoted, at = [], [], 0
    while True:
        found = _SEGMENT.match(word, at)
        if found is None:
            raise FilterError(
                "a name has no empty parts; put odd ones in quotes",
                text=text,
                position=position + at,
            )
        plain, double, single = found.groups()
        segments.append(plain if plain is not None else _unescaped(double or single or ""))
        are_quoted.append(plain is None)
        at = found.end()
        if at == len(word):
            return Field(tuple(segments), tuple(are_quoted), position)
        if word[at] != ".":
            raise FilterError("expected '.'", text=text, position=position + at)
        at += 1


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


@lru_cache(maxsize=64)
def parse_order(text: str) -> tuple[Order, ...]:
    """Return the keys of an order: names with `-` before those that are to descend, and commas.

    Raises: TypeError; FilterError that points at the place.
    """
    if not isinstance(text, str):
        raise TypeError(f"an order is a str such as '-created', not {type(text).__name__}")
    keys, at = [], 0
    while True:
        found = _ORDER.match(text, at)
        if found is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise FilterError("expected a name", text=text, position=place, what="order")
        keys.append(Order(read_field(text, found[2], found.start(2)), found[1] == "-"))
        at = found.end()
        if found[3] != ",":
            return tuple(keys)
