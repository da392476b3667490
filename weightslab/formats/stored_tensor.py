"""The only tensor of a file of torch.save, where it lies: torch itself would copy it."""

from __future__ import annotations

import re
import sys
import zipfile
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.pickles import load_pickle

if TYPE_CHECKING:
    import torch

    from weightslab.formats.held import HeldPart

__all__ = ["load_tensor"]

_RECORD: Final = re.compile(r"[^/]+/data/0")
_LOCAL_HEADER_BYTES: Final = 30  # APPNOTE.TXT 4.3.7; name and extra field follow
_LENGTHS: Final = slice(26, 30)


def load_tensor(held: HeldPart) -> Any:
    """Return what the file holds; a plain tensor looks at the held bytes.

    Raises: as `load_pickle`; FormatError for a tensor that reaches beyond its bytes.
    """
    import torch

    if not zipfile.is_zipfile(held.name_or_file()):
        return load_pickle(held)
    found = load_pickle(held, device="meta")
    data = _data_of(held)
    if data is None or not isinstance(found, torch.Tensor) or not _is_plain(found):
        return load_pickle(held)
    if not found.numel():
        return torch.empty(found.shape, dtype=found.dtype)
    try:
        flat = torch.frombuffer(data, dtype=found.dtype)
        return flat.as_strided(found.shape, found.stride(), found.storage_offset())
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"a tensor in {held.path.name} is larger than its bytes") from error


def _is_plain(found: torch.Tensor) -> bool:
    import torch

    special = found.is_quantized or found.is_conj() or found.is_neg()
    return found.is_meta and found.layout is torch.strided and not special


def _data_of(held: HeldPart) -> memoryview | None:
    """Return the bytes of the storage; None if there are several, or they are not as in memory."""
    with zipfile.ZipFile(held.name_or_file()) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        order = archive.read(entries["byteorder"]) if "byteorder" in entries else b"little"
    stored = [entry for name, entry in entries.items() if name.startswith("data/")]
    if len(stored) != 1 or not _RECORD.fullmatch(stored[0].filename):
        return None
    (entry,) = stored
    if entry.compress_type != zipfile.ZIP_STORED or order.decode("ascii") != sys.byteorder:
        return None
    lengths = held.view[entry.header_offset :][_LENGTHS]
    start = entry.header_offset + _LOCAL_HEADER_BYTES
    start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    data = held.view[start : start + entry.file_size]
    return data if len(data) == entry.file_size else None
