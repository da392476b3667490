"""Pickles of others, read by torch's weights-only loader; nothing in them is run.

Enums of known systems have inert stand-ins. Everything else that is not plain is refused with the
name of its type; `trust=True` lets pickle do what the file says, which is to run any code.
"""

from __future__ import annotations

import enum
import pickle
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, TruncatedError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightslab.formats.held import HeldFile, HeldPart

__all__ = ["load_pickle", "stand_in"]

_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+)")
_WHY: Final = re.compile(r"WeightsUnpickler error: *(\S[^\n]*)")
_MAX_INFLATION: Final = 2  # torch stores without compression; what swells beyond is no checkpoint
_ENCRYPTED: Final = 0x1


def stand_in(dotted: str, members: Mapping[str, str]) -> tuple[Any, str]:
    """Return an enum with these members that stands for the one named `dotted` of another system."""
    made = enum.Enum(dotted.rpartition(".")[2], dict(members), type=str)  # type: ignore[misc]
    return made, dotted


def load_pickle(
    held: HeldFile | HeldPart, *, trust: bool = False, stand_ins: tuple[tuple[Any, str], ...] = ()
) -> Any:
    """Return what `torch.save` wrote; its tensors look at the held bytes where torch can map them.

    Args:
        held: the file.
        trust: run whatever the pickle names.
        stand_ins: (class, dotted name) of inert classes to put in the place of others.
    Raises: UnsafePickleError naming the type that the file would have made; TruncatedError,
        FormatError for what is no such file.
    """
    import torch

    is_zip = bytes(held.view[:4]) == b"PK\x03\x04"
    if is_zip:
        _check_zip(held)
    elif not held.size_bytes:
        raise TruncatedError(f"{held.path.name} is empty")
    try:
        with torch.serialization.safe_globals([*stand_ins, *_numpy_globals()]):
            return torch.load(
                held.name_or_file(),
                map_location="cpu",
                weights_only=not trust,
                mmap=is_zip and held.can_be_mapped,
            )
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        if found is None:
            why = _WHY.search(str(error))
            text = why[1][:200] if why else "its bytes are no pickle that torch reads"
            raise FormatError(f"{held.path.name} is no file of torch.save: {text}") from error
        raise UnsafePickleError(
            f"{held.path.name} would make a {found[1]}, which may run code",
            hint="if you trust who wrote it, --trust (trust=True) lets its pickle run any code",
        ) from error
    except Exception as error:  # what torch and pickle make of bytes that are no checkpoint
        raise FormatError(
            f"{held.path.name} cannot be read: {type(error).__name__}: {error!s:.200}"
        ) from error


def _numpy_globals() -> Iterator[Any]:
    """Yield what numpy arrays and numbers are pickled as; none of it runs code of the file."""
    import numpy as np

    core: Any = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray  # type: ignore[attr-defined]
    for old in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield core._reconstruct, f"{old}._reconstruct"
        yield core.scalar, f"{old}.scalar"
    yield np.ndarray
    yield np.dtype
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"):
        yield type(np.dtype(kind))


def _check_zip(held: HeldFile | HeldPart) -> None:
    try:
        with zipfile.ZipFile(held.name_or_file()) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise TruncatedError(f"{held.path.name} is cut off or damaged: {error}") from error
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise FormatError(f"{held.path.name} is protected by a password", hint="unpack it first")
    if sum(entry.file_size for entry in entries) > _MAX_INFLATION * held.size_bytes:
        raise FormatError(
            f"{held.path.name} says it holds far more than its {held.size_bytes} bytes"
        )
