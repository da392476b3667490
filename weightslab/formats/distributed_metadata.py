"""The `.metadata` of torch.distributed.checkpoint: which entry lies where.

It is a pickle of dataclasses, which are not made: see `inert`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.inert import Inert, load_inert

if TYPE_CHECKING:
    from weightslab.formats.held import HeldFile

__all__ = ["Chunk", "Entry", "read_metadata"]

_METADATA: Final = "torch.distributed.checkpoint.metadata"
_FILES: Final = "torch.distributed.checkpoint.filesystem"
_SHARDED: Final = "torch.distributed._shard.sharded_tensor.metadata"  # home of some in torch 2.0
_DTYPES: Final = (
    "bool",
    *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
    *("bfloat16", "float16", "float32", "float64", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
_MAX_DIMENSIONS: Final = 64
_KNOWN: Final = {
    **{
        f"{_METADATA}.{name}": name
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
        )
    },
    f"{_METADATA}._MEM_FORMAT_ENCODING": "memory_format",
    f"{_METADATA}.MEM_FORMAT_ENCODING": "memory_format",
    f"{_SHARDED}.MEM_FORMAT_ENCODING": "memory_format",
    f"{_SHARDED}.TensorProperties": "TensorProperties",
    f"{_FILES}._StorageInfo": "StorageInfo",
    f"{_FILES}._StoragePrefix": "StoragePrefix",
    "torch.Size": "Size",
    "torch.serialization._get_layout": "layout",
    "collections.OrderedDict": "OrderedDict",
    **{
        f"{module}.{name}": "Path"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{f"torch.{name}": f"dtype.{name}" for name in _DTYPES},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a tensor, or a whole object, in a file.

    Attributes:
        offsets: where the piece begins in the tensor, in items; empty for an object.
        sizes: of the piece.
        file: name of the file.
        start, size_bytes: where its bytes lie there.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the state.

    Attributes:
        path: keys and positions that lead to it.
        is_tensor: an object otherwise.
        dtype: name in torch (`float32`); empty for an object.
        shape: of the whole tensor.
        chunks: its pieces; one for an object.
    """

    path: tuple[str | int, ...]
    is_tensor: bool
    dtype: str = ""
    shape: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = field(default=())


def read_metadata(held: HeldFile) -> list[Entry]:
    """Return the entries that a `.metadata` names.

    Raises: UnsafePickleError for a pickle that names anything else; FormatError.
    """
    found = load_inert(held, _KNOWN)
    if not _is(found, "Metadata"):
        raise FormatError(f"{held.path.name} holds no metadata of torch.distributed.checkpoint")
    entries, storage = found.get("state_dict_metadata"), found.get("storage_data")
    if not isinstance(entries, dict) or not isinstance(storage, dict):
        raise FormatError(f"{held.path.name} does not say what is stored where")
    places = _places(storage)
    paths = found.get("planner_data")
    paths = paths if isinstance(paths, dict) else {}
    return [_entry(name, entry, paths.get(name), places) for name, entry in entries.items()]


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, Inert) and value.kind == kind


_Places = dict[tuple[str, tuple[int, ...] | None], Inert]


def _places(storage: dict[Any, Any]) -> _Places:
    """Return (name, offsets) -> where it lies."""
    places: _Places = {}
    for index, info in storage.items():
        if not _is(index, "MetadataIndex") or not _is(info, "StorageInfo"):
            raise FormatError("a place in .metadata is not in order")
        name, offset = index.get("fqn"), index.get("offset")
        if not isinstance(name, str):
            raise FormatError("a place in .metadata has no name")
        key = name, None if offset is None else _numbers(offset, name)
        if key in places:
            raise FormatError(f"{name!r:.80} has two places in .metadata")
        places[key] = info
    return places


def _entry(name: Any, entry: Any, path: Any, places: _Places) -> Entry:
    if not isinstance(name, str):
        raise FormatError(f"an entry of .metadata is named {type(name).__name__}")
    keys = _path(name, path)
    if _is(entry, "BytesStorageMetadata"):
        chunk = _chunk(name, (), (), places.get((name, None)))
        return Entry(path=keys, is_tensor=False, chunks=(chunk,))
    if not _is(entry, "TensorStorageMetadata"):
        raise FormatError(f"{name!r:.80} is neither tensor nor object in .metadata")
    shape, pieces = _numbers(entry.get("size"), name), entry.get("chunks")
    if not isinstance(pieces, list) or not all(_is(p, "ChunkStorageMetadata") for p in pieces):
        raise FormatError(f"{name!r:.80} has no pieces in .metadata")
    chunks = []
    for piece in pieces:
        offsets = _numbers(piece.get("offsets"), name)
        sizes = _numbers(piece.get("sizes"), name)
        found = places.get((name, offsets), places.get((name, None)))
        chunks.append(_chunk(name, offsets, sizes, found))
    return Entry(
        path=keys,
        is_tensor=True,
        dtype=_dtype(entry.get("properties"), name),
        shape=shape,
        chunks=tuple(chunks),
    )


def _path(name: str, path: Any) -> tuple[str | int, ...]:
    if path is None:
        return (name,)
    if not isinstance(path, tuple) or not path or not all(type(k) in (str, int) for k in path):
        raise FormatError(f"{name!r:.80} has a path in .metadata that is none")
    return path


def _chunk(name: str, offsets: tuple[int, ...], sizes: tuple[int, ...], info: Any) -> Chunk:
    if not isinstance(info, Inert):
        raise FormatError(f"{name!r:.80} has no place in .metadata")
    file, start, length = (info.get(key) for key in ("relative_path", "offset", "length"))
    if type(file) is not str or type(start) is not int or type(length) is not int:
        raise FormatError(f"the place of {name!r:.80} is not in order")
    if info.get("transform_descriptors"):
        raise FormatError(f"{name!r:.80} is stored transformed, which cannot be read")
    if start < 0 or length < 0:
        raise FormatError(f"the place of {name!r:.80} is outside of {file!r:.80}")
    return Chunk(offsets=offsets, sizes=sizes, file=file, start=start, size_bytes=length)


def _numbers(value: Any, name: str) -> tuple[int, ...]:
    """Return the numbers of a `torch.Size`, as it was or as a stand-in."""
    if _is(value, "Size"):
        value = tuple(value.args[0]) if value.args and isinstance(value.args[0], tuple) else ()
    ok = isinstance(value, (tuple, list)) and len(value) <= _MAX_DIMENSIONS
    if not ok or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        raise FormatError(f"a size of {name!r:.80} is not in order")
    return tuple(value)


def _dtype(properties: Any, name: str) -> str:
    """Return the dtype; `TensorProperties` begin with it, or have a field of that name."""
    state = properties.state if _is(properties, "TensorProperties") else None
    found = state[0] if isinstance(state, tuple) and state else None
    found = state.get("dtype") if isinstance(state, dict) else found
    # a dtype is a name, not a call: what stands there is the class of its stand-in
    kind = getattr(found, "kind", "")
    if not isinstance(kind, str) or not kind.startswith("dtype."):
        raise FormatError(f"{name!r:.80} has no dtype in .metadata")
    return kind.removeprefix("dtype.")
