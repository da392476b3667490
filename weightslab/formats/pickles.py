"""Pickles of others, read by torch's weights-only loader; nothing in them is run.

Enums of known systems have inert stand-ins. Everything else that is not plain is refused with the
name of its type; `trust=True` lets pickle do what the file says, which is to run any code. Also then
the safe way is tried first, and stand-ins stay stand-ins.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, TruncatedError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightslab.formats.held import HeldFile, HeldPart

__all__ = ["load_pickle", "plain_text", "stand_in"]

_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+)")
_WHY: Final = re.compile(r"WeightsUnpickler error: *(\S[^\n]*)")
_MAX_INFLATION: Final = 2  # torch stores without compression; what swells beyond is no checkpoint
_ENCRYPTED: Final = 0x1


class StandIn(str):
    """A text in the place of a member of an enum; nothing can be written to it, or to its class."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The text, as an enum has it."""
        return str(self)


def stand_in(dotted: str, members: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """Return an inert class that stands for the str-enum named `dotted` of another system.

    Args:
        dotted: module and class.
        members: name -> value of all that there are; any text is taken where they are not known.
    """
    values = None if members is None else frozenset(members.values())

    class Member(StandIn):
        """A member by its value."""

        __slots__ = ()

        def __new__(cls, value: object) -> Member:  # noqa: PYI034 - `Self` is this class here
            if type(value) is not str or (values is not None and value not in values):
                raise ValueError(f"{value!r:.60} is no member of {dotted}")
            return super().__new__(cls, value)

    Member.__name__ = Member.__qualname__ = dotted.rpartition(".")[2]
    for name, value in (members or {}).items():
        setattr(Member, name, Member(value))
    return Member, dotted


def plain_text(value: Any) -> Any:
    """Return the text for a stand-in, and everything else as it is."""
    return str(value) if isinstance(value, StandIn) else value


def load_pickle(
    held: HeldFile | HeldPart,
    *,
    trust: bool = False,
    stand_ins: tuple[tuple[Any, str], ...] = (),
    device: str = "cpu",
) -> Any:
    """Return what `torch.save` wrote; its tensors look at the held bytes where torch can map them.

    Args:
        held: the file.
        trust: run whatever the pickle names, where it cannot be read otherwise.
        stand_ins: (class, dotted name) of inert classes to put in the place of others.
        device: where tensors come to lie; `meta` tells their form alone.
    Raises: UnsafePickleError naming the type that the file would have made; TruncatedError,
        FormatError for what is no such file.
    """
    if _is_zip(held):
        _check_zip(held)
    elif not held.size_bytes:
        raise TruncatedError(f"{held.path.name} is empty")
    try:
        return _load(held, stand_ins, device, trust=False)
    except UnsafePickleError:
        if not trust:
            raise
    return _load(held, stand_ins, device, trust=True)


def _is_zip(held: HeldFile | HeldPart) -> bool:
    return bytes(held.view[:4]) == b"PK\x03\x04"


def _load(
    held: HeldFile | HeldPart,
    stand_ins: tuple[tuple[Any, str], ...],
    device: str,
    *,
    trust: bool,
) -> Any:
    import torch

    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([*stand_ins, *_numpy_globals()]),
        ):
            # not a word to the user: what the loader does not know of protocol 4, it refuses
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(
                held.name_or_file(),
                map_location=device,
                weights_only=not trust,
                mmap=_is_zip(held) and held.can_be_mapped,
                pickle_module=_trusting(stand_ins) if trust else None,
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


def _trusting(stand_ins: tuple[tuple[Any, str], ...]) -> Any:
    """Return what torch takes for the module `pickle`: it finds everything, and the stand-ins."""
    found = {dotted: kind for kind, dotted in stand_ins}

    class Unpickler(pickle.Unpickler):  # its caller has said that the file is trusted
        def find_class(self, module: str, name: str) -> Any:
            return found.get(f"{module}.{name}") or super().find_class(module, name)

    return SimpleNamespace(
        __name__="pickle",
        Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load(),
        UnpicklingError=pickle.UnpicklingError,
    )


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
