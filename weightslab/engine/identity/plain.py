"""Plain values: what YAML can hold, and one readable tagged form for what it cannot.

Any supported value becomes a nesting of None, bool, int, float, str, list and dict; the plain form
of a plain form is itself, so what was stored and read back has the digest of the original.

    tuple, set (sorted), array, range  list           Path, device, dtype, date, UUID   text
    Namespace, dataclass, pydantic,    dict           bytes        {"$bytes": "<hex>"}
      OmegaConf, attrs, mappings                      complex      {"$complex": [re, im]}
    numpy and 0-d torch scalars        number         Decimal, Fraction  {"$number": "1/10"}
    dict with keys YAML cannot hold    {"$dict": [[key, value], ...]}
    enum member   {"$enum": ["Color.RED", value]}     object of a user's class
    function, class   {"$name": "torch.relu"}           {"$object": class, "$state": {name: value}}

No recursion: depth is bounded by memory, the number of values by `MAX_VALUES`.
"""

from __future__ import annotations

import math
import types
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.canonical import (
    Tree,
    encode_canonical,
    encode_leaf,
    float_text,
    int_text,
)
from weightslab.engine.identity.expand import LEAF, Shape, expand
from weightslab.engine.identity.library import (
    class_dict,
    class_mro,
    is_library,
    module_of,
    qualified_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.identity.expand import Special

__all__ = ["MAX_VALUES", "Where", "check_metaclass", "plain_bytes", "plain_tree", "to_plain"]

MAX_VALUES: Final = 1_000_000  # containers, not their items: seconds; aliases 20 deep reach it
_FLAT: Final = LEAF - {id(float)}  # floats may be infinite, and then JSON has no word for them
_SLOW: Final = object()
_ANSWERING: Final = frozenset({"__eq__", "__hash__", "__getattribute__"})
Where = tuple[Any, Any]  # (parent, key): rendered only when an error needs the path


def to_plain(
    value: object,
    *,
    root: str = "",
    special: Special | None = None,
    lenient: Callable[[str], bool] | None = None,
    json: bool = False,
) -> Any:
    """Return the plain form of `value`.

    Args:
        root: name of the value in messages.
        special: asked first for every value that is not None, bool, int, float or str: returns a
            `Shape`, or None to go on with the rules above.
        lenient: says of a dotted path (dict keys only) whether a value there that has no plain
            form is written as `{"$opaque": "<type>"}` instead of an error.
        json: write non-finite floats as `{"$float": "nan"}`, which YAML does not need.
    Raises: NotCanonicalError naming path, type and remedy; for cycles as well.
    """
    quick = _quick(value, json)
    return _Writer(root, special, lenient, json).run(value) if quick is _SLOW else quick


def _quick(value: Any, json: bool) -> Any:
    """Return the plain form of a number, text or flat sequence of them; `_SLOW` for the rest."""
    kind = type(value)
    if id(kind) in LEAF:
        return value if not json or kind is not float or math.isfinite(value) else _SLOW
    if (kind is tuple or kind is list) and all(id(type(item)) in _FLAT for item in value):
        return list(value)
    return _SLOW


class _Writer:
    """One conversion: a stack of tasks instead of recursion."""

    def __init__(
        self,
        root: str,
        special: Special | None,
        lenient: Callable[[str], bool] | None,
        json: bool,
    ) -> None:
        self._json = json
        self._root = root
        self._special = special
        self._lenient = lenient
        self._open: set[int] = set()
        self._count = 0
        self._tasks: list[tuple[Any, ...]] = []

    def run(self, value: object) -> Any:
        out: list[Any] = [None]
        self._tasks.append(("visit", value, None, False, out, 0))
        while self._tasks:
            task = self._tasks.pop()
            if task[0] == "visit":
                self._visit(*task[1:])
            elif task[0] == "sort":
                task[1].sort(key=_sort_key)
            else:
                self._open.discard(id(task[1]))
        return out[0]

    def _visit(self, value: Any, where: Where | None, soft: bool, into: Any, slot: Any) -> None:
        if id(type(value)) in LEAF:
            finite = not self._json or type(value) is not float or math.isfinite(value)
            into[slot] = value if finite else {"$float": repr(value)}
            return
        self._count += 1
        if self._count > MAX_VALUES:
            raise NotCanonicalError(f"more than {MAX_VALUES} values at {self._path(where)}")
        try:
            shape = self._shape_of(value)
        except NotCanonicalError as error:
            if soft:
                kind = type(value)
                into[slot] = {"$opaque": f"{kind.__module__}.{kind.__qualname__}"}
                return
            raise NotCanonicalError(
                f"{self._path(where)}: {error.message}", hint=error.hint
            ) from error
        self._build(value, shape, where, soft, into, slot)

    def _shape_of(self, value: Any) -> Shape:
        if id(value) in self._open:
            raise NotCanonicalError(
                "a container that holds itself", hint="break the cycle, or exclude the key"
            )
        check_metaclass(type(value))
        if issubclass(type(value), type):
            check_metaclass(value)
        shape = self._special(value) if self._special is not None else None
        return shape or expand(value)

    def _build(
        self, value: Any, shape: Shape, where: Where | None, soft: bool, into: Any, slot: Any
    ) -> None:
        mode, content = shape
        if mode == "leaf":
            self._visit(content, where, soft, into, slot)  # a plain scalar: one level, no more
            return
        self._open.add(id(value))
        self._tasks.append(("leave", value))
        if mode == "again":  # the value stands for another one, at the same path
            self._tasks.append(("visit", content, where, soft, into, slot))
        elif mode in ("list", "set"):
            result: list[Any] = [None] * len(content)
            into[slot] = result
            if mode == "set":
                self._tasks.append(("sort", result))
            self._tasks.extend(
                ("visit", content[i], (where, i), soft, result, i)
                for i in range(len(content) - 1, -1, -1)
            )
        else:
            self._build_dict(content, where, soft, into, slot)

    def _build_dict(
        self, items: list[tuple[Any, Any]], where: Where | None, soft: bool, into: Any, slot: Any
    ) -> None:
        record: dict[Any, Any] = {}
        into[slot] = record
        tasks = []
        for key, value in items:
            record[key] = None  # keeps the order of the keys
            inner = (where, str(key)) if not str(key).startswith("$") else where
            now_soft = soft or (self._lenient is not None and self._lenient(_dotted(inner)))
            tasks.append(("visit", value, inner, now_soft, record, key))
        self._tasks.extend(reversed(tasks))

    def _path(self, where: Where | None) -> str:
        path = _dotted(where)
        if not path:
            return self._root or "the value"
        return f"{self._root}.{path}" if self._root else path


def check_metaclass(kind: type) -> None:
    """Refuse a class whose metaclass runs a user's code when the class is only looked at.

    Raises: NotCanonicalError naming the class.
    """
    meta = type(kind)
    if meta is type or is_library(module_of(meta)):
        return
    for base in class_mro(meta):
        members = () if is_library(module_of(base)) else class_dict(base).items()
        # written in Python: those of pybind11 and other extensions only look
        if any(name in _ANSWERING and type(m) is types.FunctionType for name, m in members):
            raise NotCanonicalError(
                f"the class {qualified_name(kind)} has a metaclass, {qualified_name(base)}, that"
                " answers comparisons or attribute look-ups by code of its own",
                hint="pass what describes the object: numbers, texts, lists or dicts",
            )


def _dotted(where: Where | None) -> str:
    parts: list[str] = []
    while where is not None:
        where, key = where
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "".join(reversed(parts)).lstrip(".")


def _sort_key(plain: Any) -> tuple[int, Any, bytes]:
    """Order of set members: numbers by value, then text, then the rest by encoding."""
    encoding = plain_bytes(plain)
    if isinstance(plain, (int, float)) and not isinstance(plain, bool) and plain == plain:  # noqa: PLR0124
        return 0, plain, encoding
    if isinstance(plain, str):
        return 1, plain, encoding
    return 2, 0, encoding


# ---------------------------------------------------------------- plain -> canonical tree
def plain_tree(plain: Any, *, strict: bool = False) -> Tree:
    """Return the canonical tree of a plain value.

    Args:
        strict: keep 1 and 1.0 apart, and text exactly as it is. Otherwise 1 is 1.0 and text is
            Unicode-normalised (NFC: macOS hands out decomposed file names).
    Raises: NotCanonicalError for two keys of one dict that become the same.
    """
    out: list[Tree] = [None]
    tasks: list[tuple[Any, list[Tree], int]] = [(plain, out, 0)]
    while tasks:
        value, into, slot = tasks.pop()
        if isinstance(value, list):
            tree: list[Tree] = ["l", *([None] * len(value))]
            into[slot] = tree
            tasks.extend((item, tree, i) for i, item in enumerate(value, 1))
        elif isinstance(value, dict):
            tree = ["d"]
            into[slot] = tree
            for _, key, item in _sorted_items(value, strict):
                tree.extend((key, None))
                tasks.append((item, tree, len(tree) - 1))
        else:
            into[slot] = _leaf_tree(value, strict)
    return out[0]


def plain_bytes(plain: Any, *, strict: bool = False) -> bytes:
    """Return `encode_canonical(plain_tree(plain))` without building the tree: 4 x faster.

    Raises: as `plain_tree` and `encode_canonical`.
    """
    out: list[bytes] = []
    known: dict[str, bytes] = {}  # names and labels come again and again
    stack: list[Any] = [plain]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is str:
            encoding = known.get(value)
            if encoding is None:
                encoding = known[value] = encode_leaf(_leaf_tree(value, strict))
            out.append(encoding)
        elif kind is int:
            text = int_text(value)
            out.append(b"l2:s1:ns%d:%b" % (len(text), text.encode()))
        elif kind is bytes:  # a key, encoded already: plain values hold no bytes
            out.append(value)
        elif kind is list:
            out.append(b"l%d:s1:l" % (len(value) + 1))
            stack.extend(reversed(value))
        elif kind is dict:
            out.append(b"l%d:s1:d" % (2 * len(value) + 1))
            for encoding, _, item in reversed(_sorted_items(value, strict)):
                stack += (item, encoding)
        else:
            out.append(encode_canonical(_leaf_tree(value, strict)))
    return b"".join(out)


def _sorted_items(record: dict[Any, Any], strict: bool) -> list[tuple[bytes, Tree, Any]]:
    """Return (encoded key, key, value), sorted by the first."""
    keyed: dict[bytes, tuple[bytes, Tree, Any]] = {}
    for key, item in record.items():
        tree = _leaf_tree(key, strict)
        encoding = encode_leaf(tree) if type(tree) is str else encode_canonical(tree)
        if encoding in keyed:
            raise NotCanonicalError(
                f"two keys of one dict are the same once written: {key!r}", hint="rename one"
            )
        keyed[encoding] = (encoding, tree, item)
    return [keyed[encoding] for encoding in sorted(keyed)]


def _leaf_tree(value: Any, strict: bool) -> Tree:
    if value is None:
        return None
    if isinstance(value, str):
        return value if strict or value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, bool):
        return ["b", "1" if value else "0"]
    if isinstance(value, int):
        return ["n", int_text(value)]
    if strict:
        return ["f", float_text(value)]
    text = float_text(value)
    whole = value == value and abs(value) != float("inf") and value == int(value)  # noqa: PLR0124
    return ["n", int_text(int(value)) if whole and text != "-0x0.0p+0" else text]
