"""The file image: tensors laid out as a safetensors file in memory. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import digest_parts
from weightslab.engine.tensors.header import ITEM_BITS, HeaderEntry, render_header
from weightslab.engine.values import FileRecord, TensorRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["DeviceBytes", "FileImage", "PackedTensor", "pack"]

_FORMAT: Final = {"format": "pt"}  # transformers refuses files without it


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBytes:
    """Bytes that lie in the memory of a device, and have to be copied before they can be read.

    Attributes:
        source: tensor uint8 [size_bytes] on the device, contiguous.
        size_bytes: how many they are.
    """

    source: Any
    size_bytes: int

    def __len__(self) -> int:
        """Return `size_bytes`."""
        return self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTensor:
    """One tensor as it will stand in a file.

    Attributes:
        dtype: safetensors name (`F32`, ...).
        shape: sizes of the dimensions, in items of `dtype`.
        data: its bytes, contiguous, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview | DeviceBytes


@dataclass(slots=True, kw_only=True)
class FileImage:
    """A safetensors file in memory.

    Attributes:
        parts: the header, then the bytes of each tensor in file order.
        entries: name -> tensor in the order of `parts[1:]`; offsets count from the start of the file.
        aliases: name of a tied tensor -> name under which its bytes are stored.
        whole: the same bytes as `parts`, where they lie in one buffer.
        device_parts: number in `parts` -> bytes of a device that belong there. Such an image has to
            be `placed` before it can be hashed or written.
    """

    parts: list[memoryview | bytes]
    entries: dict[str, HeaderEntry]
    aliases: dict[str, str] = field(default_factory=dict)
    whole: memoryview | None = None
    device_parts: dict[int, DeviceBytes] = field(default_factory=dict)
    _digests: tuple[str, list[str]] | None = field(default=None, repr=False)
    _records: tuple[FileRecord, dict[str, TensorRecord]] | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return sum(map(len, self.parts)) + sum(map(len, self.device_parts.values()))

    @property
    def buffers(self) -> list[memoryview | bytes]:
        """What to write: as few buffers as there are."""
        return self.parts if self.whole is None else [self.whole]

    def records(self, file_name: str, part: str) -> tuple[FileRecord, dict[str, TensorRecord]]:
        """Return the digests of the whole file, the header and each tensor.

        The first call hashes, in one walk over the bytes; later ones only change the names.

        Args:
            file_name: name that the file will have.
            part: `model`, `model.{name}`, `training` or `stable`.
        """
        known = self._records
        if known is not None and (known[0].name, known[0].part) == (file_name, part):
            return known
        assert not self.device_parts, "bytes of a device cannot be hashed; place the image first"
        if self._digests is None:
            self._digests = digest_parts(self.parts)
        whole, (head, *each) = self._digests
        file = FileRecord(
            name=file_name,
            part=part,
            size_bytes=self.size_bytes,
            digest=whole,
            header_size_bytes=len(self.parts[0]),
            header_digest=head,
        )
        self._records = (
            file,
            {
                name: TensorRecord(
                    file=file_name,
                    dtype=entry.dtype,
                    shape=entry.shape,
                    offset=entry.offset,
                    size_bytes=entry.size_bytes,
                    digest=digest,
                )
                for (name, entry), digest in zip(self.entries.items(), each, strict=True)
            },
        )
        return self._records

    def select(self, names: Collection[str]) -> dict[str, PackedTensor]:
        """Return some of the tensors, to be packed into another file; nothing is copied."""
        return {
            name: PackedTensor(dtype=entry.dtype, shape=entry.shape, data=memoryview(data))
            for (name, entry), data in zip(self.entries.items(), self.parts[1:], strict=True)
            if name in names
        }

    def placed(
        self, place: memoryview
    ) -> tuple[FileImage, list[tuple[memoryview, memoryview | DeviceBytes]]]:
        """Return the same image over other memory, and what is to be copied to make it true.

        Args:
            place: writable memory of `size_bytes`.
        Returns: the image, and (destination, source) pairs of equal lengths.
        """
        parts: list[memoryview | bytes] = []
        pairs: list[tuple[memoryview, memoryview | DeviceBytes]] = []
        start = 0
        for number, part in enumerate(self.parts):
            source = self.device_parts.get(number) or memoryview(part)
            target = place[start : start + len(source)]
            pairs.append((target, source))
            parts.append(target)
            start += len(source)
        entries, aliases = self.entries, self.aliases
        return FileImage(parts=parts, entries=entries, aliases=aliases, whole=place), pairs


def pack(
    tensors: Mapping[str, PackedTensor],
    *,
    aliases: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> FileImage:
    """Lay out tensors as one safetensors file; nothing is copied.

    Args:
        tensors: name -> tensor.
        aliases: name of a tied tensor -> stored name; written into the header's metadata as
            `safetensors.torch.save_model` does.
        metadata: text -> text to put into the header beside `{"format": "pt"}`.
    Raises: NotStorableError for a name that the header cannot hold.
    """
    specs = tuple((n, t.dtype, t.shape, len(t.data)) for n, t in tensors.items())
    aliases = dict(aliases or {})
    texts = {**aliases, **(metadata or {}), **_FORMAT}
    head, entries = _layout(specs, tuple(texts.items()))
    parts: list[memoryview | bytes] = [head]
    elsewhere: dict[int, DeviceBytes] = {}
    for number, name in enumerate(entries, start=1):
        data = tensors[name].data
        if isinstance(data, DeviceBytes):
            elsewhere[number] = data
        parts.append(b"" if isinstance(data, DeviceBytes) else data)
    return FileImage(parts=parts, entries=dict(entries), aliases=aliases, device_parts=elsewhere)


@lru_cache(maxsize=16)  # a training saves the same few layouts again and again
def _layout(
    specs: tuple[tuple[str, str, tuple[int, ...], int], ...], metadata: tuple[tuple[str, str], ...]
) -> tuple[bytes, dict[str, HeaderEntry]]:
    """Return the header, and name -> entry in the order of the bytes.

    Args:
        specs: name, dtype, shape and size in bytes of each tensor.
        metadata: text and text.
    """
    relative: dict[str, HeaderEntry] = {}
    position = 0
    # largest items first, so that every tensor is aligned to its item size without padding
    for name, dtype, shape, size in sorted(specs, key=lambda s: (-_item_bytes(s[1]), s[0])):
        relative[name] = HeaderEntry(dtype=dtype, shape=shape, offset=position, size_bytes=size)
        position += size
    head = render_header(relative, dict(metadata))
    return head, {
        name: HeaderEntry(
            dtype=e.dtype, shape=e.shape, offset=e.offset + len(head), size_bytes=e.size_bytes
        )
        for name, e in relative.items()
    }


def _item_bytes(dtype: str) -> int:
    return -(-ITEM_BITS[dtype] // 8)
