"""The samples file: the samples of an experiment as compressed HDF5, whole or as what changed.

A whole file has

    /active/int64           int64 [n]   UIDs given as integers, ascending
    /active/decimal_text    int64 [n]   UIDs given as decimal text ("17"), ascending
    /active/utf8            uint8 [m]   all other UIDs, UTF-8, joined, in ascending byte order
    /active/utf8_lengths    int64 [n]   length of each of them in bytes
    /discarded/...          the same for discarded UIDs, if there are any
    /facets/{name}          uint8 [m]   JSON: [[UID, value], ...], if the facet counts

A delta has `/added`, `/removed` and `/discarded` instead: what to do to the set in the base file that
lies beside it. Attributes of the file: `schema`, `schema_version`, `digest` (of the active set); of a
delta also `base_digest` and `base_known_digest`, which the base has to have.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

from weightslab.engine.errors import DigestMismatchError, FormatError, InvalidManifestError
from weightslab.engine.identity.base import Base, set_bits
from weightslab.engine.identity.facets import key_of, keys_of
from weightslab.engine.identity.overlay import Overlay, columns_of_given, state_of
from weightslab.engine.identity.samples import SampleSet, checked_columns
from weightslab.engine.identity.texts import PADDING, Texts
from weightslab.engine.identity.uids import Columns, sort_integers
from weightslab.engine.repository.manifest import check_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py
    import numpy as np
    import numpy.typing as npt

    Group = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Texts]

__all__ = ["BaseToken", "base_token", "delta_to_bytes", "samples_from_bytes", "samples_to_bytes"]

SCHEMA: Final = "weightslab.samples"
SCHEMA_VERSION: Final = 1
_CHUNK: Final = 1 << 16  # 64 Ki elements: 512 KiB of int64, fits the chunk cache of HDF5 (1 MiB)
_MALFORMED: Final = (
    *(OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError, MemoryError),
)
_MAX_RATIO: Final = (
    1032  # of deflate: https://zlib.net/zlib_tech.html, "Maximum Compression Factor"
)

Found = TypeVar("Found")
BaseToken = tuple[str, str]  # digests of the active and of all known samples of a base


def token_of(base: Base) -> BaseToken:
    """Return what a base file is recognised by."""
    return base.active.digest, base.known.digest


# ---------------------------------------------------------------- writing
def samples_to_bytes(samples: SampleSet) -> bytes:
    """Write the whole set as an HDF5 file image."""
    return _whole(samples.overlay())


def base_to_bytes(base: Base) -> bytes:
    """Write a base as the file that deltas refer to."""
    return _whole(Overlay.over(base))


def _whole(overlay: Overlay) -> bytes:
    active, discarded = overlay.active(), overlay.discarded()
    groups = {"active": active}
    if any(len(column) for column in discarded):
        groups["discarded"] = discarded
    return _render({"digest": overlay.state.digest}, groups, overlay)


def delta_to_bytes(samples: SampleSet) -> bytes:
    """Write what makes the set of its base, as an HDF5 file image."""
    import numpy as np

    overlay = samples.overlay()
    base, rows = overlay.base, overlay.changed_rows()
    changed = Columns.of(*base.pick(rows))
    is_active = overlay.holds(changed)
    restored = changed.where(is_active)
    more = columns_of_given(overlay.added)
    removed = changed.where(~is_active)
    groups: dict[str, Group] = {
        "added": (
            sort_integers(np.concatenate([restored.int64, more[0]])),
            sort_integers(np.concatenate([restored.decimal_text, more[1]])),
            Texts.join([restored.texts, more[2]]),
        ),
        "removed": (removed.int64, removed.decimal_text, removed.texts),
        "discarded": columns_of_given(overlay.dropped),
    }
    digest, known = token_of(base)
    attributes = {
        "digest": samples.digest,
        "base_digest": digest,
        "base_known_digest": known,
    }
    return _render(attributes, groups, overlay)


def _render(attributes: dict[str, str], groups: dict[str, Group], overlay: Overlay) -> bytes:
    import h5py
    import numpy as np

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["schema_version"] = SCHEMA_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        keys: list[int | bytes] = []
        for name, columns in groups.items():
            _write_set(file.create_group(name), columns)
            if name != "removed" and overlay.facets:
                keys += keys_of(Columns.of(*columns))
        for facet, values in sorted(overlay.facets.items()):
            pairs = [[_uid_of(key), values[key]] for key in keys if key in values]
            text = json.dumps(pairs, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
            _write(file, f"facets/{facet}", np.frombuffer(text.encode(), np.uint8))
    return image.getvalue()


def _uid_of(key: int | bytes) -> int | str:
    return key if isinstance(key, int) else key.decode()


def _write_set(group: h5py.Group, columns: Group) -> None:
    import numpy as np

    texts = columns[2].ascending()
    _write(group, "int64", columns[0])
    _write(group, "decimal_text", columns[1])
    _write(group, "utf8", texts.joined())
    _write(group, "utf8_lengths", np.diff(texts.bounds).astype(np.int64))


def _write(group: h5py.Group, name: str, column: npt.NDArray[Any]) -> None:
    filters: dict[str, Any] = (
        {"chunks": (min(len(column), _CHUNK),), "compression": "gzip", "compression_opts": 1}
        if len(column)
        else {}
    )
    group.create_dataset(name, data=column, shuffle=bool(filters), **filters)


# ---------------------------------------------------------------- reading
def base_token(data: bytes | memoryview, *, what: str) -> BaseToken | None:
    """Return which base a samples file needs; None for a whole file.

    Raises: InvalidManifestError, UnsupportedVersionError.
    """

    def read(_: h5py.File, attributes: dict[str, Any]) -> BaseToken | None:
        if "base_digest" not in attributes:
            return None
        return str(attributes["base_digest"]), str(attributes["base_known_digest"])

    return _reading(data, what, read)


def samples_from_bytes(
    data: bytes | memoryview, *, what: str, base: Base | None = None
) -> SampleSet:
    """Read a set back and check it against the digest that it was stored with.

    Args:
        data: the file.
        what: its name for messages.
        base: what `base_token` asks for.
    Returns: a frozen set.
    Raises: InvalidManifestError, DigestMismatchError, UnsupportedVersionError.
    """

    def read(file: h5py.File, attributes: dict[str, Any]) -> tuple[SampleSet, str]:
        overlay = Overlay.over(_read_base(file)) if base is None else _apply(base, file)
        return SampleSet(overlay, frozen=True), str(attributes["digest"])

    samples, digest = _reading(data, what, read)
    if samples.digest != digest:
        raise DigestMismatchError(
            f"{what} holds a sample set with the digest {samples.digest}, not {digest}"
        )
    return samples


def _reading(
    data: bytes | memoryview, what: str, read: Callable[[h5py.File, dict[str, Any]], Found]
) -> Found:
    import h5py

    try:
        with h5py.File(_Mapped(data), "r") as file:
            attributes = {key: _plain(value) for key, value in file.attrs.items()}
            check_schema(attributes, schema=SCHEMA, version=SCHEMA_VERSION, what=what)
            return read(file, attributes)
    except FormatError:
        raise
    except _MALFORMED as error:
        raise InvalidManifestError(f"{what} is not a samples file: {error}") from error


def _read_base(file: h5py.File) -> Base:
    import numpy as np

    active = _read_set(_own(file, "active"))
    facets = _read_facets(file)
    if "discarded" not in file:
        return Base.of(active, known=state_of(active, facets), facets=facets)
    discarded, state = _read_set(_own(file, "discarded")), state_of(active, facets)
    columns = Columns.of(
        sort_integers(np.concatenate([active.int64, discarded.int64])),
        sort_integers(np.concatenate([active.decimal_text, discarded.decimal_text])),
        Texts.join([active.texts, discarded.texts]),
    )
    known = state.plus(state_of(discarded, facets))
    if len(columns) != known.count or (Base.of(active, known=state).find(discarded) >= 0).any():
        raise ValueError("a sample is active and discarded")
    base = Base.of(columns, known=known, active=state, facets=facets)
    gone = np.zeros((len(base) + 7) // 8, np.uint8)
    set_bits(gone, base.find(discarded))
    return base.with_gone(gone, state)


def _apply(base: Base, file: h5py.File) -> Overlay:
    """Return what a delta makes of its base."""
    overlay = Overlay.over(base)
    facets = _read_facets(file)
    removed, added, dropped = (_read_set(_own(file, n)) for n in ("removed", "added", "discarded"))
    overlay.discard(removed)
    known = base.find(added) >= 0
    overlay.restore(added.where(known))
    overlay.add(added.where(~known), facets)
    overlay.add(dropped, {})
    overlay.discard(dropped)
    return overlay


def _read_facets(file: h5py.File) -> dict[str, dict[int | bytes, Any]]:
    if "facets" not in file:
        return {}
    facets = _own(file, "facets")
    return {
        name: {
            key_of(uid): value for uid, value in json.loads(_dataset(facets, name)[()].tobytes())
        }
        for name in facets
    }


def _own(group: h5py.Group, name: str) -> Any:
    """Return what has a name in this very file; links to other places are refused.

    Raises: KeyError, ValueError.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is not in this file")  # noqa: TRY004 - a fault of the file
    return group[name]


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a column of integers that lies in this file, and is no larger than its bytes can be.

    HDF5 reads data of other files where a dataset says so (and dies of it, where it was given a
    mapped file), and takes the declared size for true.

    Raises: KeyError, ValueError.
    """
    found = _own(group, name)
    if not hasattr(found, "dtype") or found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(f"{name} is not a column of integers")
    if found.is_virtual or found.external:
        raise ValueError(f"the data of {name} is not in this file")
    if found.nbytes > _MAX_RATIO * found.id.get_storage_size():
        raise ValueError(f"{name} declares {found.nbytes} bytes, more than it can hold")
    return found


def _integers(group: h5py.Group, name: str) -> npt.NDArray[Any]:
    """Read a column that ascends; one that does not even begin so is not read any further."""
    found = _dataset(group, name)
    if len(found) > 1 and found[0] >= found[1]:
        raise ValueError(f"{name} does not ascend")
    return found[()]  # type: ignore[no-any-return] # h5py is not typed


def _read_set(group: h5py.Group) -> Columns:
    import numpy as np

    texts, counts = _dataset(group, "utf8"), _dataset(group, "utf8_lengths")
    size_bytes = texts.size
    if len(counts) > size_bytes + 1:  # one of them may be empty
        raise ValueError("there are more text UIDs than bytes for them")
    bounds = _read_bounds(counts, size_bytes)
    joined = np.zeros(size_bytes + PADDING, np.uint8)
    if size_bytes:
        texts.read_direct(joined, dest_sel=np.s_[:size_bytes])  # no second copy of them
    return checked_columns(
        _integers(group, "int64"), _integers(group, "decimal_text"), Texts(joined, bounds)
    )


def _read_bounds(counts: h5py.Dataset, size_bytes: int) -> npt.NDArray[Any]:
    """Add lengths up to bounds, a chunk at a time: all of them would take twice what is kept."""
    import numpy as np

    bounds = np.zeros(len(counts) + 1, np.uint32 if size_bytes < 1 << 32 else np.int64)
    end = 0
    for at in range(0, len(counts), _CHUNK):
        lengths = counts[at : at + _CHUNK].astype(np.int64, copy=False)
        if lengths.min() < 0 or lengths.max() > size_bytes:
            raise ValueError("the lengths of the text UIDs do not fit their bytes")
        ends = np.cumsum(lengths) + end
        end = int(ends[-1])
        if end > size_bytes:
            break
        bounds[at + 1 : at + 1 + ends.size] = ends
    if end != size_bytes:
        raise ValueError("the lengths of the text UIDs do not fit their bytes")
    return bounds


class _Mapped(io.RawIOBase):
    """A mapped file as HDF5 wants to see it, without a copy in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = memoryview(data), 0

    def readable(self) -> bool:
        # docstring inherited
        return True

    def seekable(self) -> bool:
        # docstring inherited
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        # docstring inherited
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        # docstring inherited
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        # docstring inherited
        part = self._data[self._at : self._at + len(buffer)]
        memoryview(buffer).cast("B")[: len(part)] = part
        self._at += len(part)
        return len(part)


def _plain(value: Any) -> Any:
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value
