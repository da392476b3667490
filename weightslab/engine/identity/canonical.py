"""Canonical bytes: one injective encoding of trees of None, text and lists, and its digests.

    None          n
    str           s<length in bytes>:<UTF-8>
    list          l<number of items>:<items, one after the other>

Everything that has an identity becomes such a tree first. A component digest is

    SHA-256( "wlid" | 0x01 | kind, ASCII | 0x00 | encoding )      written  wl1:sha256:<64 hex>
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import NotCanonicalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ABSENT",
    "EXP_HASH_DIGITS",
    "SCHEME",
    "Tree",
    "combine",
    "component_digest",
    "digest_of_encoding",
    "encode_canonical",
    "encode_leaf",
    "exp_hash_of",
    "float_text",
    "int_text",
]

Tree = Any  # None | str | list[Tree]: mypy cannot check the depth of a recursive alias cheaply
SCHEME: Final = "wl1"
ABSENT: Final = "absent"
EXP_HASH_DIGITS: Final = 16  # 64 bits: a clash is expected once in 190,000 experiments at p = 1e-9
_MAGIC: Final = b"wlid"
_VERSION: Final = b"\x01"
_INT_CHUNK_DIGITS: Final = 4000  # below 4300, where CPython refuses to print an integer (3.11+)


def encode_canonical(tree: Tree) -> bytes:
    """Encode `tree` so that two trees have the same bytes only if they are equal.

    Args:
        tree: None, str, or list of trees; any depth (no recursion), lists may be shared.
    Raises: NotCanonicalError for another type, a lone surrogate, or a list that holds itself.
    """
    out: list[bytes] = []
    open_lists: set[int] = set()
    stack: list[tuple[list[Tree], Iterator[Tree]]] = []
    pending: Tree = tree
    while True:
        if type(pending) is list:
            if id(pending) in open_lists:
                raise NotCanonicalError("a list that holds itself has no canonical form")
            open_lists.add(id(pending))
            out.append(b"l%d:" % len(pending))
            stack.append((pending, iter(pending)))
        else:
            out.append(encode_leaf(pending))
        while stack:
            owner, items = stack[-1]
            try:
                pending = next(items)
                break
            except StopIteration:
                stack.pop()
                open_lists.discard(id(owner))
        else:
            return b"".join(out)


def encode_leaf(leaf: Tree) -> bytes:
    """Encode None or a text.

    Raises: NotCanonicalError for another type, and for a lone surrogate.
    """
    if leaf is None:
        return b"n"
    if type(leaf) is not str:
        raise NotCanonicalError(f"a canonical tree holds None, str and list, not {type(leaf)}")
    try:
        data = leaf.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotCanonicalError(
            f"the text {leaf[:60]!a} holds half a character (a lone surrogate)",
            hint="decode it with the right encoding, or pass it as bytes",
        ) from error
    return b"s%d:%b" % (len(data), data)


def component_digest(kind: str, tree: Tree) -> str:
    """Return `wl1:sha256:<64 hex>` of `tree` as a component of this kind.

    Args:
        kind: ASCII name such as `model`, `config`, `data`; equal trees of two kinds differ.
    """
    return digest_of_encoding(kind, encode_canonical(tree))


def digest_of_encoding(kind: str, encoding: bytes) -> str:
    """Return the component digest of a tree that is encoded already."""
    data = b"%b%b%b\x00%b" % (_MAGIC, _VERSION, kind.encode("ascii"), encoding)
    return f"{SCHEME}:sha256:{hashlib.sha256(data).hexdigest()}"


def combine(
    model: str | None, config: str | None, data: str | None, origin: str | None = None
) -> str:
    """Return the full digest of an experiment from the digests of its components.

    Args:
        model, config, data: component digests; None: this component was never given.
        origin: digest of a foreign source, where an import leaves a component unknown.
    """
    parts = [ABSENT if part is None else part for part in (model, config, data, origin)]
    return component_digest("experiment", [SCHEME, *parts])


def exp_hash_of(combined: str) -> str:
    """Return the 16 hex digits that name the experiment of this full digest."""
    return combined.rpartition(":")[2][:EXP_HASH_DIGITS]


def int_text(value: int) -> str:
    """Return `value` in decimal, also where it has more digits than CPython prints."""
    if abs(value).bit_length() < 3 * _INT_CHUNK_DIGITS:
        return str(int(value))
    sign, rest, chunks = "-" if value < 0 else "", abs(value), []
    base = 10**_INT_CHUNK_DIGITS
    while rest:
        rest, digits = divmod(rest, base)
        chunks.append(str(digits).zfill(_INT_CHUNK_DIGITS))
    return sign + "".join(reversed(chunks)).lstrip("0")


def float_text(value: float) -> str:
    """Return `value` as exact hexadecimal text; every NaN is `nan`, -0.0 stays `-0x0.0p+0`."""
    return "nan" if value != value else float.hex(value)  # noqa: PLR0124  NaN is the one
