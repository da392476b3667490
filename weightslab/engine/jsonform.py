"""JSON in two uses: tagged values (Python objects that JSON has no word for) and sealed records.

A tagged value is an object with one key that starts with `$`:

    {"$float": "nan" | "inf" | "-inf"}      {"$tuple": [...]}        {"$bytes": "<base64>"}
    {"$dict": [[key, value], ...]}          {"$odict": [[key, value], ...]}
    {"$counter": [[key, count], ...]}       {"$set": [...]}          {"$frozenset": [...]}
    {"$enum": ["package.module:Class", "NAME"]}                      {"$numpy": ["<f4", "<hex>"]}

The list is closed: anything else is an error that names its path. Plain objects have string keys
that do not start with `$`. No value is ever built by running code that the file names.

A sealed record is a JSON object whose last line is the SHA-256 of all bytes before that line, so
that each single bit of the file is covered, and any language can check it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from weightslab.engine.digests import seal_digest
from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    NotStorableError,
    TruncatedError,
)

__all__ = [
    "decode",
    "encode",
    "parse_json",
    "seal",
    "seal_text",
    "sealed_digest",
    "unseal",
    "unseal_text",
]

MAX_DEPTH: Final = 100  # far above real states (optimizers: 4), far below the recursion limit
MAX_RECORD_BYTES: Final = 256 << 20  # a manifest of 1 million tensors is about 200 MB

Encoder = Callable[[object, str], Any]
Decoder = Callable[[str, Any, str], Any]
_PLAIN: Final = (type(None), bool, int, str)
_NUMPY_KINDS: Final = "biufc"
_MAPPING_TAGS: Final[Mapping[type, str]] = {
    dict: "$dict",
    OrderedDict: "$odict",
    Counter: "$counter",
}


# ---------------------------------------------------------------- tagged values
def encode(value: object, *, leaf: Encoder | None = None, path: str = "$") -> Any:
    """Turn `value` into plain JSON, with tags where JSON has no word.

    Args:
        value: any nesting of the closed list in the module text.
        leaf: asked first for every value that JSON has no word for, containers included: returns its
            JSON form, or `NotImplemented`.
        path: name of the value in error messages.
    Raises: NotStorableError naming path and type of the first value that has no form, or of a
        nesting deeper than 100 (a cycle, usually).
    """
    return _encode(value, leaf, path, 0)


def _encode(value: Any, leaf: Encoder | None, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotStorableError(
            f"{path[:200]} is nested more than {MAX_DEPTH} levels deep",
            hint="a container that holds itself has no stored form; flatten it",
        )
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if leaf is not None and (found := leaf(value, path)) is not NotImplemented:
        return found
    if kind is list:
        return [_encode(v, leaf, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
    if kind is tuple:
        return {
            "$tuple": [_encode(v, leaf, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        }
    if kind is dict and all(type(k) is str and not k.startswith("$") for k in value):
        return {k: _encode(v, leaf, f"{path}.{k}", depth + 1) for k, v in value.items()}
    return _encode_tagged(value, leaf, path, depth)


def _encode_tagged(value: Any, leaf: Encoder | None, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is float:
        return {"$float": repr(value)}
    if (tag := _MAPPING_TAGS.get(kind)) is not None:
        return {
            tag: [
                [
                    _encode(k, leaf, f"{path}.key({k!r:.60})", depth + 1),
                    _encode(v, leaf, f"{path}[{k!r:.60}]", depth + 1),
                ]
                for k, v in value.items()
            ]
        }
    if kind in (set, frozenset):
        members = [_encode(v, leaf, f"{path}{{}}", depth + 1) for v in value]
        return {f"${kind.__name__}": sorted(members, key=lambda m: json.dumps(m, sort_keys=True))}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, enum.Enum) and _can_be_found(value):
        return {"$enum": [f"{kind.__module__}:{kind.__qualname__}", value.name]}
    dtype: Any = getattr(value, "dtype", None)
    if (
        kind.__module__ == "numpy"
        and getattr(dtype, "kind", "?") in _NUMPY_KINDS
        and not value.ndim
    ):
        return {"$numpy": [dtype.str, value.tobytes().hex()]}
    raise NotStorableError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which has no stored form",
        hint="use None, bool, int, float, str, bytes, list, tuple, dict, set, Counter, OrderedDict,"
        " an Enum member or a numpy scalar",
    )


def _can_be_found(member: enum.Enum) -> bool:
    """Tell whether a name leads back to `member`: not so for `A|B` and for classes in functions."""
    kind = type(member)
    return member.name in kind.__members__ and "<locals>" not in kind.__qualname__


def decode(document: Any, *, leaf: Decoder | None = None, path: str = "$") -> Any:
    """Turn the JSON that `encode` made back into the value, types included.

    Args:
        document: parsed JSON.
        leaf: asked for every unknown tag: `leaf(tag, content, path)` returns the value or
            `NotImplemented`.
    Raises: FormatError naming the path of a tag that is unknown or malformed. An enum whose module
        has not been imported by the running program is such an error: nothing is imported here.
    """
    return _decode(document, leaf, path, 0)


def _decode(document: Any, leaf: Decoder | None, path: str, depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:  # a tagged pair is two levels of JSON for one of the value
        raise FormatError(f"{path[:200]} is nested more than {2 * MAX_DEPTH} levels deep")
    if isinstance(document, list):
        return [_decode(v, leaf, f"{path}[{i}]", depth + 1) for i, v in enumerate(document)]
    if not isinstance(document, dict):
        return document
    if len(document) == 1:
        (tag, content), *_ = document.items()
        if tag.startswith("$"):
            return _decode_tag(tag, content, leaf, path, depth + 1)
    return {k: _decode(v, leaf, f"{path}.{k}", depth + 1) for k, v in document.items()}


def _decode_tag(tag: str, content: Any, leaf: Decoder | None, path: str, depth: int) -> Any:
    if leaf is not None and (found := leaf(tag, content, path)) is not NotImplemented:
        return found
    builder = _BUILDERS.get(tag)
    if builder is None:
        raise FormatError(f"{path} has the unknown tag {tag!r}", hint="written by a newer version?")
    try:
        if tag in _SEQUENCE_TAGS:
            content = [_decode(v, leaf, f"{path}[{i}]", depth) for i, v in enumerate(content)]
        elif tag in _PAIR_TAGS:
            content = [
                (_decode(k, leaf, path, depth), _decode(v, leaf, f"{path}[{k!r:.60}]", depth))
                for k, v in content
            ]
        return _complete(builder(content), content)
    except FormatError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, binascii.Error) as error:
        raise FormatError(f"{path} has a malformed {tag} value: {error}") from error


def _complete(value: Any, content: Any) -> Any:
    """Refuse a mapping or set that lost members because the file has them twice."""
    if isinstance(value, (dict, set, frozenset)) and len(value) != len(content):
        raise ValueError("a member stands there twice")
    return value


def _decode_float(content: str) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError(f"{content!r} is not a non-finite float")
    return float(content)


def _decode_enum(content: list[str]) -> enum.Enum:
    where, name = content
    module, _, qualname = where.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise FormatError(
            f"the enum {where} is not known to this process",
            hint=f"import {module} before loading; nothing is imported on behalf of a file",
        )
    return found.__members__[name]


def _decode_numpy(content: list[str]) -> Any:
    import numpy as np

    text, data = content
    dtype = np.dtype(text)
    if dtype.kind not in _NUMPY_KINDS or dtype.str != text:
        raise ValueError(f"{text!r} is not a plain numeric dtype")
    raw = bytes.fromhex(data)
    if len(raw) != dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes for {text}")
    return np.frombuffer(raw, dtype)[0]


_SEQUENCE_TAGS: Final = frozenset({"$tuple", "$set", "$frozenset"})
_PAIR_TAGS: Final = frozenset({"$dict", "$odict", "$counter"})
_BUILDERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$float": _decode_float,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
    "$odict": OrderedDict,
    "$counter": lambda pairs: Counter(dict(pairs)),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$enum": _decode_enum,
    "$numpy": _decode_numpy,
}


# ---------------------------------------------------------------- sealed records
_TAIL: Final = re.compile(rb',\n"digest":"(sha256:[0-9a-f]{64})"\n\}\n\Z')
_TAIL_BYTES: Final = len(b',\n"digest":"sha256:') + 64 + len(b'"\n}\n')


def seal(document: Mapping[str, Any]) -> bytes:
    """Render `document` (plain JSON, no key `digest`) with its own SHA-256 as the last line.

    Keys are sorted at every level; each top-level entry, and each entry of a top-level object,
    stands on a line of its own.
    """
    assert document, "an empty record says nothing"
    assert "digest" not in document, "the key `digest` belongs to the seal"
    body = b"{\n" + ",\n".join(_lines(document)).encode("ascii")
    return body + f',\n"digest":"{seal_digest(body)}"\n}}\n'.encode("ascii")


def sealed_digest(data: bytes) -> str:
    """Return the digest at the end of a record that `seal` has just made."""
    found = _TAIL.search(data, max(0, len(data) - _TAIL_BYTES))
    assert found is not None, "not a sealed record"
    return found.group(1).decode("ascii")


def _lines(document: Mapping[str, Any]) -> Iterable[str]:
    for key in sorted(document):
        value = document[key]
        if isinstance(value, dict) and value and not any(k.startswith("$") for k in value):
            inner = ",\n ".join(f"{_dump(k)}:{_dump(value[k])}" for k in sorted(value))
            yield f"{_dump(key)}:{{\n {inner}}}"
        else:
            yield f"{_dump(key)}:{_dump(value)}"


_render: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _dump(value: Any) -> str:
    try:
        return _render(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise NotStorableError(f"a record cannot be written as JSON: {error}") from error


def unseal(data: bytes | memoryview, *, what: str) -> tuple[dict[str, Any], str]:
    """Check the seal of `data` and parse it.

    Args:
        data: the whole file.
        what: name of the file in error messages.
    Returns: the record without `digest`, and the digest (`sha256:...`).
    Raises: TruncatedError, DigestMismatchError; InvalidManifestError for content that is sealed
        and still not a JSON object.
    """
    raw = bytes(data)
    found = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if found is None:
        raise TruncatedError(f"{what} has no digest at its end ({len(raw)} bytes): cut or damaged")
    digest, body = found.group(1).decode("ascii"), raw[: found.start()]
    if seal_digest(body) != digest:
        raise DigestMismatchError(f"{what} is damaged: its bytes do not have the digest {digest}")
    return parse_json(body + b"}", what=what), digest


def parse_json(data: bytes, *, what: str) -> dict[str, Any]:
    """Parse one JSON object strictly: UTF-8, no duplicate keys, no NaN, bounded size and depth.

    Raises: InvalidManifestError.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidManifestError(f"{what} has {len(data)} bytes; the limit is {MAX_RECORD_BYTES}")
    try:
        parsed = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidManifestError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidManifestError(f"{what} is not a JSON object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("an object has the same key twice")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# ---------------------------------------------------------------- sealed text (YAML, plain text)
_TEXT_TAIL: Final = re.compile(rb"\n# (sha256:[0-9a-f]{64})\n\Z")


def seal_text(text: str) -> bytes:
    """Append the SHA-256 of `text` as a last comment line (`# sha256:...`)."""
    try:
        body = text.rstrip("\n").encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotStorableError(f"a text cannot be written as UTF-8: {error}") from error
    return body + f"\n# {seal_digest(body)}\n".encode("ascii")


def unseal_text(data: bytes | memoryview, *, what: str) -> str:
    """Check the last comment line of `data` and return the text before it.

    Raises: TruncatedError, DigestMismatchError.
    """
    raw = bytes(data)
    found = _TEXT_TAIL.search(raw, max(0, len(raw) - 80))
    if found is None:
        raise TruncatedError(f"{what} has no digest line at its end: cut, edited or damaged")
    body, digest = raw[: found.start()], found.group(1).decode("ascii")
    if seal_digest(body) != digest:
        raise DigestMismatchError(f"{what} is damaged or was edited: digest {digest} does not fit")
    return body.decode("utf-8") + "\n"
