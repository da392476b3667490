"""The samples file: the active UIDs of an experiment as compressed HDF5.

    /active/int64           int64 [n]   UIDs given as integers, ascending
    /active/decimal_text    int64 [n]   UIDs given as decimal text ("17"), ascending
    /active/utf8            uint8 [m]   all other UIDs, UTF-8, joined, in ascending byte order
    /active/utf8_lengths    int64 [n]   length of each of them in bytes
    /discarded/...          the same for the discarded UIDs, if they were given

Attributes of the file: `schema`, `schema_version`, `digest` (of the active set).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from weightslab.engine.errors import DigestMismatchError, FormatError, InvalidManifestError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository.manifest import check_schema

if TYPE_CHECKING:
    import h5py

__all__ = ["samples_from_bytes", "samples_to_bytes"]

SCHEMA: Final = "weightslab.samples"
SCHEMA_VERSION: Final = 1
_CHUNK: Final = 1 << 16  # 64 Ki elements: 512 KiB of int64, fits the chunk cache of HDF5 (1 MiB)


def samples_to_bytes(samples: SampleSet, *, discarded: SampleSet | None = None) -> bytes:
    """Write the sets as an HDF5 file image."""
    import h5py

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["digest"] = samples.digest
        _write_set(file.create_group("active"), samples)
        if discarded is not None:
            _write_set(file.create_group("discarded"), discarded)
    return image.getvalue()


def _write_set(group: h5py.Group, samples: SampleSet) -> None:
    texts = samples.texts
    columns: dict[str, np.ndarray[Any, Any]] = {
        "int64": samples.int64,
        "decimal_text": samples.decimal_text,
        "utf8": np.frombuffer(b"".join(texts), np.uint8),
        "utf8_lengths": np.fromiter(map(len, texts), np.int64, len(texts)),
    }
    for name, column in columns.items():
        filters: dict[str, Any] = (
            {"chunks": (min(len(column), _CHUNK),), "compression": "gzip", "compression_opts": 1}
            if len(column)
            else {}
        )
        group.create_dataset(name, data=column, shuffle=bool(filters), **filters)


def samples_from_bytes(data: bytes | memoryview, *, what: str) -> SampleSet:
    """Read the active set back and check it against the digest that it was stored with.

    Raises: InvalidManifestError, DigestMismatchError, UnsupportedVersionError.
    """
    samples, digest = _read(data, "active", what)
    assert samples is not None
    if samples.digest != digest:
        raise DigestMismatchError(
            f"{what} holds a sample set with the digest {samples.digest}, not {digest}"
        )
    return samples


def discarded_from_bytes(data: bytes | memoryview, *, what: str) -> SampleSet | None:
    """Read the discarded set back; None if it was not recorded."""
    return _read(data, "discarded", what)[0]


def _read(data: bytes | memoryview, name: str, what: str) -> tuple[SampleSet | None, str]:
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            attributes = {key: _plain(value) for key, value in file.attrs.items()}
            check_schema(attributes, schema=SCHEMA, version=SCHEMA_VERSION, what=what)
            digest = str(attributes["digest"])
            if name == "discarded" and name not in file:
                return None, digest
            return _read_set(file[name]), digest
    except FormatError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InvalidManifestError(f"{what} is not a samples file: {error}") from error


def _read_set(group: h5py.Group) -> SampleSet:
    joined = group["utf8"][()].tobytes()
    lengths = group["utf8_lengths"][()]
    ends = np.cumsum(lengths)
    if len(lengths) and (lengths.min() < 0 or ends[-1] != len(joined)):
        raise ValueError("the lengths of the text UIDs do not fit their bytes")
    texts = [joined[e - n : e] for e, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    return SampleSet.from_columns(
        int64=np.asarray(group["int64"][()], np.int64),
        decimal_text=np.asarray(group["decimal_text"][()], np.int64),
        texts=texts,
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
