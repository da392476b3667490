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

from typing import TYPE_CHECKING, Final

from weightslab.engine.identity.parallel import in_parts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.texts import Texts

    Words = npt.NDArray[np.uint64]
    Int64 = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = ["mix_int", "mix_ints", "mix_text", "mix_texts", "stir", "stir_word", "sum_ints"]

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
_FEW: Final = 16  # a numpy call costs as much as mixing this many words one by one


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
    return (
        _mix_words(0, _start(0, TAG_TEXT, len(data)), data),
        _mix_words(1, _start(1, TAG_TEXT, len(data)), data),
    )


def stir_word(word: int, key: int) -> int:
    """Return fmix[1](word ^ key): another number for each key, and for one key a bijection."""
    return _fmix(1, word ^ key)


def _mix_words(lane: int, h: int, data: bytes) -> int:
    for at in range(0, len(data), 8):
        h = _fmix(lane, h ^ int.from_bytes(data[at : at + 8], "little"))
    return h


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
    starts = [np.uint64(_start(lane, TAG_INT, 8)) for lane in (0, 1)]

    def work(low: int, high: int, step: int) -> list[int]:
        h = np.empty(min(step, high - low), np.uint64)
        scratch = np.empty_like(h)
        sums = [0, 0]
        for at in range(low, high, step):
            block = words[at : min(at + step, high)]
            n = block.size
            for lane in (0, 1):
                np.bitwise_xor(block, starts[lane], out=h[:n])
                _fmix_in_place(lane, h[:n], scratch[:n])
                sums[lane] += int(h[:n].sum(dtype=np.uint64))
        return sums

    return _total(in_parts(words.size, work))


def mix_ints(values: npt.NDArray[np.int64]) -> Words:
    """Return lane 0 of each integer, uint64 [n]."""
    import numpy as np

    return _mix_each(0, np.ascontiguousarray(values).view(np.uint64), _start(0, TAG_INT, 8))


def stir(words: Words, key: int) -> Words:
    """Return `stir_word` of each word, uint64 [n]."""
    return _mix_each(1, words, key)


def _mix_each(lane: int, words: Words, key: int) -> Words:
    import numpy as np

    mixed: Words = words ^ np.uint64(key)

    def work(low: int, high: int, step: int) -> None:
        scratch = np.empty(min(step, high - low), np.uint64)
        for at in range(low, high, step):
            block = mixed[at : min(at + step, high)]
            _fmix_in_place(lane, block, scratch[: block.size])

    in_parts(words.size, work)
    return mixed


def mix_texts(texts: Texts) -> tuple[Words, tuple[int, int]]:
    """Return lane 0 of each text, uint64 [n], and the sums modulo 2^64 of both lanes."""
    import numpy as np

    first = np.empty(len(texts), np.uint64)

    def work(low: int, high: int, step: int) -> list[int]:
        sums, second = [0, 0], np.empty(min(step, high - low), np.uint64)
        for at in range(low, high, step):
            end = min(at + step, high)
            lanes = (first[at:end], second[: end - at])
            _mix_block(lanes, texts.data, *texts.spans(at, end))
            for lane in (0, 1):
                sums[lane] += int(lanes[lane].sum(dtype=np.uint64))
        return sums

    return first, _total(in_parts(len(texts), work))


def _total(parts: list[list[int]]) -> tuple[int, int]:
    return sum(part[0] for part in parts) & MASK, sum(part[1] for part in parts) & MASK


def _mix_block(lanes: tuple[Words, Words], data: Bytes, starts: Int64, lengths: Int64) -> None:
    """Mix one block of texts into `lanes`, two arrays uint64 [m]."""
    import numpy as np

    scratch = np.empty_like(lanes[0])
    for lane in (0, 1):
        np.bitwise_xor(lengths.view(np.uint64), np.uint64(_start(lane, TAG_TEXT, 0)), lanes[lane])
    shortest, longest = int(lengths.min()), int(lengths.max())
    for k in range(0, longest, 8):
        if k < shortest:  # every text has bytes here
            words = _words_at(data, starts, lengths, k)
            for lane in (0, 1):
                np.bitwise_xor(lanes[lane], words, out=lanes[lane])
                _fmix_in_place(lane, lanes[lane], scratch)
            continue
        rows = np.flatnonzero(lengths > k)
        if rows.size <= _FEW:
            _finish_one_by_one(lanes, data, starts, lengths, (rows.tolist(), k))
            return
        words = _words_at(data, starts[rows], lengths[rows], k)
        for lane in (0, 1):
            mixed = lanes[lane][rows] ^ words
            _fmix_in_place(lane, mixed, scratch[: rows.size])
            lanes[lane][rows] = mixed


def _words_at(data: Bytes, starts: Int64, lengths: Int64, k: int) -> Words:
    """Return the 8 bytes of each text from its byte `k` on, as a word; zero behind its end."""
    import numpy as np

    low, stride = int(starts[0]), int(starts[1] - starts[0]) if starts.size > 1 else 1
    if stride > 0 and bool((np.diff(starts) == stride).all()):  # of one length: no index needed
        words: Words = np.ndarray((starts.size,), "<u8", data, low + k, (stride,))
    else:
        everywhere = np.ndarray((data.size - 7,), "<u8", data, 0, (1,))
        words = everywhere[starts + k]
    left = lengths - k
    if int(left.min()) >= 8:  # noqa: PLR2004 - bytes of a word
        return words
    masks = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
    masked: Words = words & masks[np.minimum(left, 8)]
    return masked


def _finish_one_by_one(
    lanes: tuple[Words, Words],
    data: Bytes,
    starts: Int64,
    lengths: Int64,
    todo: tuple[list[int], int],
) -> None:
    """Mix the rest of a few long texts, from byte `todo[1]` on; blocks would be mostly air."""
    rows, k = todo
    for row in rows:
        begin, size = int(starts[row]), int(lengths[row])
        text = data[begin + k : begin + size].tobytes()
        for lane in (0, 1):
            lanes[lane][row] = _mix_words(lane, int(lanes[lane][row]), text)
