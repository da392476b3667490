"""The form of a bundle: a plain tar of files and of links to earlier files in it, read strictly.

Headers are made and taken apart by `tarfile`; walking through the archive is done here, because nothing
but files may be in it: no folders, no symbolic links, no devices, no name twice, nothing behind its end.
Names longer than 100 characters stand in a GNU `L` (`K` for the target of a link) block before theirs,
sizes above 8 GiB in base 256, as GNU tar and `tarfile` write and read them.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import FormatError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["BLOCK_BYTES", "END", "Member", "file_header", "link_header", "padding", "read_members"]

BLOCK_BYTES: Final = tarfile.BLOCKSIZE
END: Final = b"\0" * (2 * BLOCK_BYTES)
_MAX_NAME_BYTES: Final = 512  # the longest name that a root has is below 200
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_KINDS: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "an extended header",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of a bundle.

    Attributes:
        name: its key.
        offset: of its first byte.
        size_bytes: its length.
        same_as: name of the earlier file whose bytes these are; empty if it has bytes of its own.
    """

    name: str
    offset: int
    size_bytes: int
    same_as: str = ""


def file_header(name: str, size_bytes: int) -> bytes:
    """Return the header of a file: the same for the same file, whoever writes it and when."""
    return _header(name, size_bytes=size_bytes)


def link_header(name: str, same_as: str) -> bytes:
    """Return the header of a file that has the bytes of an earlier one."""
    return _header(name, same_as=same_as)


def _header(name: str, *, size_bytes: int = 0, same_as: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, 0
    info.type, info.linkname = (tarfile.LNKTYPE, same_as) if same_as else (tarfile.REGTYPE, "")
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padding(size_bytes: int) -> bytes:
    """Return what fills the last block of a file."""
    return b"\0" * (-size_bytes % BLOCK_BYTES)


def read_members(data: memoryview) -> list[Member]:
    """Return the files of a bundle in their order; nothing of them is read.

    Raises: TruncatedError if it ends too early; FormatError for anything that no bundle holds.
    """
    found: dict[str, Member] = {}
    for member in _walk(data):
        if member.name in found:
            raise FormatError(f"{member.name!r:.200} is in the archive twice", hint=_REFUSED)
        found[member.name] = _linked(member, found) if member.same_as else member
    return list(found.values())


def _linked(member: Member, earlier: Mapping[str, Member]) -> Member:
    owner = earlier.get(member.same_as)
    if owner is None or owner.same_as:
        raise FormatError(
            f"{member.name!r:.200} is a link to {member.same_as!r:.200},"
            " which is no earlier file of the archive",
            hint=_REFUSED,
        )
    return replace(member, offset=owner.offset, size_bytes=owner.size_bytes)


_REFUSED: Final = "it was not written by weightslab bundle; nothing was taken from it"


def _walk(data: memoryview) -> Iterator[Member]:
    at, name, target = 0, "", ""
    while True:
        block = bytes(data[at : at + BLOCK_BYTES])
        if len(block) < BLOCK_BYTES:
            raise TruncatedError("the archive ends in the middle", hint="copy it again")
        at += BLOCK_BYTES
        if not block.strip(b"\0"):
            _require_end(data, at, pending=bool(name or target))
            return
        info = _parse(block)
        if info.size > len(data) - at:
            raise TruncatedError(
                f"the archive ends within {name or info.name!r:.200}", hint="copy it again"
            )
        if info.type == _LONG_NAME and not name:
            name = _long_text(data, at, info.size)
        elif info.type == _LONG_LINK and not target:
            target = _long_text(data, at, info.size)
        else:
            yield _member(info, at, name, target)
            name = target = ""
        at += info.size + len(padding(info.size))


def _parse(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError, ValueError) as error:
        raise FormatError(f"this is no bundle, or a damaged one: {error}") from error
    if info.size < 0:
        raise FormatError(f"{info.name!r:.200} has a negative size", hint=_REFUSED)
    return info


def _long_text(data: memoryview, at: int, size_bytes: int) -> str:
    if not 0 < size_bytes <= _MAX_NAME_BYTES:
        raise FormatError(f"a name of {size_bytes} bytes is in the archive", hint=_REFUSED)
    try:
        return bytes(data[at : at + size_bytes]).rstrip(b"\0").decode("utf-8")
    except UnicodeError as error:
        raise FormatError("a name in the archive is no text", hint=_REFUSED) from error


def _member(info: tarfile.TarInfo, at: int, name: str, target: str) -> Member:
    told = name or info.name
    if info.type == tarfile.LNKTYPE and not info.size:
        return Member(name=told, offset=at, size_bytes=0, same_as=target or info.linkname)
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or target or info.linkname:
        kind = _KINDS.get(info.type, f"of the type {info.type!r}")
        raise FormatError(f"{told!r:.200} in the archive is {kind}", hint=_REFUSED)
    return Member(name=told, offset=at, size_bytes=info.size)


def _require_end(data: memoryview, at: int, *, pending: bool) -> None:
    rest = data[at:]
    if len(rest) < BLOCK_BYTES:
        raise TruncatedError("the archive ends in the middle", hint="copy it again")
    if pending or len(rest) > (1 << 20) or bytes(rest).strip(b"\0"):
        raise FormatError("there is something behind the end of the archive", hint=_REFUSED)
