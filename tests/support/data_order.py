"""A slow and plain model of ResumableSampler, written from docs/design/data_order.md alone; and a loader
that draws ahead without workers."""

from __future__ import annotations

import contextlib
from collections import deque

MASK = (1 << 64) - 1


def fmix(lane, h):
    a, b, c, d, e = (
        (33, 0xFF51AFD7ED558CCD, 33, 0xC4CEB9FE1A85EC53, 33),
        (30, 0xBF58476D1CE4E5B9, 27, 0x94D049BB133111EB, 31),
    )[lane]
    h ^= h >> a
    h = h * b & MASK
    h ^= h >> c
    h = h * d & MASK
    return h ^ h >> e


def lane_0(uid):
    if isinstance(uid, int):
        return fmix(0, 0x6A09E667F3BCC908 ^ 1 << 56 ^ 8 ^ uid & MASK)
    data = uid.encode()
    h = 0x6A09E667F3BCC908 ^ 2 << 56 ^ len(data)
    for at in range(0, len(data), 8):
        h = fmix(0, h ^ int.from_bytes(data[at : at + 8], "little"))
    return h


def known(uid):
    """Decimal text is the integer."""
    return int(uid) if isinstance(uid, str) and uid.lstrip("-").isdigit() else uid


def epoch_key(seed, epoch):
    return fmix(1, fmix(1, 0x3C6EF372FE94F82B ^ seed) ^ epoch)


def spot(uid, seed, epoch, *, shuffle=True):
    uid = known(uid)
    key = fmix(1, lane_0(uid) ^ epoch_key(seed, epoch)) if shuffle else 0
    return key, isinstance(uid, str), uid.encode() if isinstance(uid, str) else uid


class PlainSampler:
    """What a loop gets: `begin()` once, then `next()` until it returns None."""

    def __init__(self, uids, *, batch_size, seed=0, shuffle=True, drop_last=False):
        self.active = set(uids)
        self.batch_size, self.seed = batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch, self.position, self.seen, self.cursor = 0, 0, 0, None
        self.is_over = True

    def left(self):
        spots = {u: spot(u, self.seed, self.epoch, shuffle=self.shuffle) for u in self.active}
        left = [u for u in spots if self.cursor is None or spots[u] > self.cursor]
        return sorted(left, key=spots.__getitem__)

    def has_batch(self):
        return len(self.left()) >= (self.batch_size if self.drop_last else 1)

    def at(self):
        over = self.cursor is not None and not self.has_batch()
        return (self.epoch + 1, 0) if over else (self.epoch, self.position)

    def end_epoch(self):
        self.epoch, self.position, self.cursor = self.epoch + 1, 0, None
        self.is_over = True

    def begin(self):
        """Returns False if an epoch has no batch."""
        if self.cursor is not None and not self.has_batch():
            self.end_epoch()
        self.is_over = False
        return self.cursor is not None or self.has_batch()

    def next(self):
        if self.is_over or not self.has_batch():
            return None
        batch = self.left()[: self.batch_size]
        self.cursor = spot(batch[-1], self.seed, self.epoch, shuffle=self.shuffle)
        self.position += len(batch)
        self.seen += len(batch)
        if not self.has_batch():
            self.end_epoch()
        return batch


class AheadLoader:
    """Does to a sampler what a DataLoader with workers does: draws `depth` batches ahead."""

    def __init__(self, sampler, depth):
        self.sampler, self.depth = sampler, depth

    def __iter__(self):
        self._draw_ahead(begins=True)
        while True:
            self.batches.require_current()
            if self.batches.is_outdated():
                self._draw_ahead(begins=False)
            if not self.queue:
                return
            indices = self.queue.popleft()
            self.num_left += 1
            self._draw()
            self.batches.hand_over(self.num_left)
            yield indices

    def _draw_ahead(self, *, begins):
        self.batches = iter(self.sampler)
        self.batches.is_followed, self.batches.begins = True, begins
        self.queue, self.num_left = deque(), 0
        for _ in range(self.depth):
            self._draw()

    def _draw(self):
        with contextlib.suppress(StopIteration):
            self.queue.append(next(self.batches))
