"""Plain pickles read without running anything: what they name is answered by inert stand-ins.

`torch.load` reads no plain pickles of newer protocols, so this is Python's own unpickler with every
name looked up here. A stand-in keeps what it is given and does nothing else; a name that has none is
an error.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from weightslab.formats.held import HeldFile

__all__ = ["Inert", "load_inert"]


class Inert:
    """Stands for an object of a class that is not made.

    Attributes:
        args: what it would have been made from.
        state: what it would have been filled with; None if nothing.
    """

    kind = ""
    __slots__ = ("args", "state")

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Self:
        """Keep the arguments; here, since a pickle may skip `__init__`."""
        made = object.__new__(cls)
        made.args = args
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field of the state, where that is a dictionary of fields."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


def load_inert(held: HeldFile, known: Mapping[str, str]) -> Any:
    """Return what a pickle holds, with an `Inert` for each object.

    Args:
        held: the file.
        known: dotted name -> kind; the `kind` of the stand-ins for it.
    Raises: UnsafePickleError naming what is not known; FormatError.
    """
    # classes of this one reading: a pickle can write to what it gets, and must not reach another's
    classes = {kind: type(f"Inert_{kind}", (Inert,), {"kind": kind}) for kind in known.values()}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            dotted = f"{module}.{name}"
            if dotted not in known:
                raise UnsafePickleError(
                    f"{held.path.name} would make a {dotted}, which may run code",
                    hint="it is read without trust in any case",
                )
            return classes[known[dotted]]

        def persistent_load(self, pid: Any, /) -> Any:  # noqa: ARG002
            raise FormatError(f"{held.path.name} refers to something outside of it")

    try:
        return Unpickler(io.BytesIO(held.view)).load()
    except (UnsafePickleError, FormatError):
        raise
    except Exception as error:  # what pickle makes of bytes that are none
        raise FormatError(
            f"{held.path.name} cannot be read: {type(error).__name__}: {error!s:.200}"
        ) from error
