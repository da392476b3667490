"""Opening the containers that UIDs come in: to int64, to one buffer of texts, or to a list.

Lists of text, numpy, pandas, pyarrow, torch and h5py are read in bulk; whatever else can be iterated
is read item by item.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.decimals import INT64_MAX, INT64_MIN
from weightslab.engine.identity.textarrays import (
    from_arrow_texts,
    from_bytes_list,
    from_numpy_texts,
    from_str_list,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.texts import Texts

    Opened = npt.NDArray[np.int64] | Texts | list[Any]

__all__ = ["open_container", "uid_error"]

REMEDY: Final = "use integers or texts as sample UIDs"
EXACT_FLOAT: Final = 1 << 53  # from here on, neighbouring integers are the same float


def uid_error(shown: str, at: int) -> IdentityError:
    """Return the error that names what cannot be a UID, and where it stands."""
    return IdentityError(
        f"active_data_uids[{at}] is a {shown}, which cannot be a sample UID", hint=REMEDY
    )


def open_container(uids: Any) -> Opened:
    """Return the UIDs as int64 [n], as `Texts`, or as a list to be read item by item.

    Raises: IdentityError for what is no collection of UIDs; for a missing value, with its position.
    """
    import numpy as np

    kind = type(uids)
    if isinstance(uids, (str, bytes, bytearray)):
        raise IdentityError(
            f"the sample UIDs are one {kind.__name__}, {uids[:40]!r}", hint="pass a list of UIDs"
        )
    if isinstance(uids, range):
        if not uids or (min(uids) >= INT64_MIN and max(uids) <= INT64_MAX):
            return np.arange(uids.start, uids.stop, uids.step, dtype=np.int64)
        return list(uids)
    if isinstance(uids, np.ndarray):
        return _from_numpy(uids)
    reader = _READERS.get(kind.__module__.partition(".")[0])
    found = None if reader is None else reader(uids)
    if found is not None:
        return found
    if not isinstance(uids, Iterable):
        raise IdentityError(
            f"the sample UIDs are a {kind.__module__}.{kind.__qualname__}, which is no collection",
            hint="pass a list, set, array or generator of UIDs",
        )
    return _from_list(uids if isinstance(uids, list) else list(uids))


def _from_list(items: list[Any]) -> Opened:
    import numpy as np

    first = type(items[0]) if items else None
    if first is int and set(map(type, items)) == {int}:
        try:
            return np.fromiter(items, np.int64, len(items))
        except OverflowError:
            return items
    found = None
    if first is str:
        found = from_str_list(items)
    elif first is bytes:
        found = from_bytes_list(items)
    return items if found is None else found


def _from_numpy(array: Any) -> Opened:
    """Read a numpy array of any shape."""
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array).ravel()
        if mask.any():
            raise uid_error("masked value", int(mask.argmax()))
        array = array.filled()
    array, kind = array.ravel(), array.dtype.kind
    if kind == "i" or (kind == "u" and (array.dtype.itemsize < 8 or _fits(array))):  # noqa: PLR2004
        return array.astype(np.int64)  # type: ignore[no-any-return]
    if kind == "f":
        return _from_floats(array)
    if kind in "US":
        found = from_numpy_texts(array)
        return array.tolist() if found is None else found
    if kind in "bcMmV" and array.size:
        raise uid_error(f"numpy.{array.dtype} ({array[0]!s:.40})", 0)
    return _from_list(array.tolist())


def _fits(array: Any) -> bool:
    return not array.size or int(array.max()) <= INT64_MAX


def _from_floats(array: Any) -> Opened:
    import numpy as np

    bad = ~np.isfinite(array) | (array != np.trunc(array)) | (np.abs(array) >= EXACT_FLOAT)
    if bad.any():
        return array[: int(bad.argmax()) + 1].tolist()  # type: ignore[no-any-return]  # the last one is named
    return array.astype(np.int64)  # type: ignore[no-any-return]


def _from_torch(tensor: Any) -> Opened | None:
    if not hasattr(tensor, "detach"):
        return None
    tensor = tensor.detach().cpu()
    if tensor.is_sparse or tensor.is_quantized:
        tensor = tensor.to_dense() if tensor.is_sparse else tensor.dequantize()
    return _from_numpy((tensor.double() if tensor.is_floating_point() else tensor).numpy())


def _from_pandas(values: Any) -> Opened | None:
    """Read an Index, Series or extension array."""
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        if hasattr(values, "columns"):
            raise IdentityError(
                "the sample UIDs are a whole pandas.DataFrame", hint="pass one of its columns"
            )
        return None
    if hasattr(values, "levels"):
        return list(values)  # tuples, which are named one by one
    missing = values.isna()
    if missing.any():
        at = int(missing.argmax())
        raise uid_error(f"missing value ({type(values).__name__}, {dtype})", at)
    array = getattr(values, "array", values)
    name = type(dtype).__name__
    if name == "CategoricalDtype":
        import numpy as np

        return open_container(array.categories.take(np.unique(array.codes)))
    if name == "ArrowDtype" or (name == "StringDtype" and dtype.storage == "pyarrow"):
        return _from_arrow(array.__arrow_array__())
    if name == "StringDtype":
        return _from_list(array.tolist())
    numpy_dtype = getattr(dtype, "numpy_dtype", None)  # of the nullable integers and floats
    return _from_numpy(values.to_numpy() if numpy_dtype is None else array.to_numpy(numpy_dtype))


def _from_arrow(array: Any) -> Opened | None:
    """Read an Array or ChunkedArray."""
    if not hasattr(array, "null_count"):
        return None
    kind = str(array.type)
    if array.null_count:
        at = array.is_null().index(value=True).as_py()
        raise uid_error(f"missing value (pyarrow {kind})", at)
    if kind.startswith("dictionary"):
        return _from_arrow(array.unique().dictionary_decode())
    if kind in _ARROW_TEXTS:
        array = array.cast(_ARROW_TEXTS[kind])
    if hasattr(array, "combine_chunks") and hasattr(array, "num_chunks"):
        array = array.combine_chunks()
    if kind not in _ARROW_TEXTS:
        return _from_numpy(array.to_numpy(zero_copy_only=False))
    found = from_arrow_texts(array)
    return array.to_pylist() if found is None else found


def _from_h5py(dataset: Any) -> Opened | None:
    return _from_numpy(dataset[()]) if hasattr(dataset, "shape") and dataset.shape else None


_ARROW_TEXTS: Final = {  # with offsets of 64 bits, so that chunks of any size can be joined
    "string": "large_string",
    "large_string": "large_string",
    "string_view": "large_string",
    "binary": "large_binary",
    "large_binary": "large_binary",
    "binary_view": "large_binary",
}
_READERS: Final = {
    "torch": _from_torch,
    "pandas": _from_pandas,
    "pyarrow": _from_arrow,
    "h5py": _from_h5py,
}
