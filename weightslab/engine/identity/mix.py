"""The 128-bit mix of one sample UID, twice: as scalars (the definition) and vectorised (the speed).

A UID is one 64-bit word (integers) or UTF-8 bytes. Per lane:

    h = SEED[lane] ^ (tag << 56) ^ length           tag 1: integer, length 8; tag 2: text
    for each little-endian 8-byte word w, the last one padded with zero bytes:
        h = fmix[lane](h ^ w)                       modulo 2^64

Lane 0 mixes with murmur3's fmix64, lane 1 with Stafford's Mix13 (the finaliser of splitmix64).
Each is a bijection, so two integers, or two texts of up to 8 bytes and one length, never collide.
docs/design/identity.md gives golden vectors. It resists accident, not intent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

__all__ = ["mix_int", "mix_text", "sum_ints", "sum_texts"]

MASK: Final = (1 << 64) - 1
# the first 64 bits of the fractional parts of sqrt(2) and sqrt(3), as in SHA-512: chosen by nobody
SEEDS: Final = (0x6A09E667F3BCC908, 0xBB67AE8584CAA73B)
TAG_INT: Final = 1
TAG_TEXT: Final = 2
# each: shift right, multiply, shift right, multiply, shift right
# lane 0: Appleby, smhasher/src/MurmurHash3.cpp, fmix64
# lane 1: Stafford, "Better Bit Mixing" (2011), variant 13; Steele et al., OOPSLA 2014
ROUNDS: Final = (
    (33, 0xFF51AFD7ED558CCD, 33, 0xC4CEB9FE1A85EC53, 33),
    (30, 0xBF58476D1CE4E5B9, 27, 0x94D049BB133111EB, 31),
)
_BLOCK: Final = 8192  # 64 KiB of words: a block and its scratch stay in the first two cache levels


def _start(lane: int, tag: int, length: int) -> int:
    return SEEDS[lane] ^ (tag << 56) ^ length


def _fmix(lane: int, h: int) -> int:
    first, multiply, second, multiply_again, third = ROUNDS[lane]
    h ^= h >> first
    h = (h * multiply) & MASK
    h ^= h >> second
    h = (h * multiply_again) & MASK
    return h ^ (h >> third)


def mix_int(value: int) -> tuple[int, int]:
    """Return both lanes of an integer in the int64 range."""
    word = value & MASK
    return (
        _fmix(0, _start(0, TAG_INT, 8) ^ word),
        _fmix(1, _start(1, TAG_INT, 8) ^ word),
    )


def mix_text(data: bytes) -> tuple[int, int]:
    """Return both lanes of a text in UTF-8."""
    lanes = []
    for lane in (0, 1):
        h = _start(lane, TAG_TEXT, len(data))
        for at in range(0, len(data), 8):
            h = _fmix(lane, h ^ int.from_bytes(data[at : at + 8], "little"))
        lanes.append(h)
    return lanes[0], lanes[1]


def _fmix_in_place(lane: int, h: Words, scratch: Words) -> None:
    import numpy as np

    first, multiply, second, multiply_again, third = (np.uint64(c) for c in ROUNDS[lane])
    np.right_shift(h, first, out=scratch)
    np.bitwise_xor(h, scratch, out=h)
    np.multiply(h, multiply, out=h)
    np.right_shift(h, second, out=scratch)
    np.bitwise_xor(h, scratch, out=h)
    np.multiply(h, multiply_again, out=h)
    np.right_shift(h, third, out=scratch)
    np.bitwise_xor(h, scratch, out=h)


def sum_ints(values: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return the sums modulo 2^64 of both lanes over int64 [n]."""
    import numpy as np

    words = np.ascontiguousarray(values).view(np.uint64)
    h = np.empty(min(_BLOCK, max(1, words.size)), np.uint64)
    scratch = np.empty_like(h)
    sums = [0, 0]
    starts = [np.uint64(_start(lane, TAG_INT, 8)) for lane in (0, 1)]
    for at in range(0, words.size, _BLOCK):
        block = words[at : at + _BLOCK]
        n = block.size
        for lane in (0, 1):
            np.bitwise_xor(block, starts[lane], out=h[:n])
            _fmix_in_place(lane, h[:n], scratch[:n])
            sums[lane] += int(h[:n].sum(dtype=np.uint64))
    return sums[0] & MASK, sums[1] & MASK


def sum_texts(texts: Sequence[bytes]) -> tuple[int, int]:
    """Return the sums modulo 2^64 of both lanes over UTF-8 texts; grouped by number of words."""
    groups: dict[int, list[bytes]] = {}
    for text in texts:
        groups.setdefault((len(text) + 7) >> 3, []).append(text)
    sums = [0, 0]
    for num_words, members in groups.items():
        per_block = max(1, _BLOCK // max(1, num_words))
        for at in range(0, len(members), per_block):
            for lane, part in enumerate(_sum_block(members[at : at + per_block], num_words)):
                sums[lane] += part
    return sums[0] & MASK, sums[1] & MASK


def _sum_block(members: list[bytes], num_words: int) -> tuple[int, int]:
    import numpy as np

    width = num_words * 8
    padded: Any = b"".join([text.ljust(width, b"\0") for text in members])
    words = np.frombuffer(padded, "<u8").reshape(len(members), num_words).astype(np.uint64)
    lengths = np.fromiter(map(len, members), np.uint64, len(members))
    columns = np.ascontiguousarray(words.T)
    sums = []
    for lane in (0, 1):
        h = lengths ^ np.uint64(_start(lane, TAG_TEXT, 0))
        scratch = np.empty_like(h)
        for column in columns:
            np.bitwise_xor(h, column, out=h)
            _fmix_in_place(lane, h, scratch)
        sums.append(int(h.sum(dtype=np.uint64)))
    return sums[0], sums[1]
