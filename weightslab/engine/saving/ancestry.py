"""Ancestry: which checkpoint the weights in a live object came from. Free of torch."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from weightslab.engine.values import ParentLink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.repository.manifest import Manifest

__all__ = ["Ancestry", "graft"]


@dataclass(slots=True)
class _Track:
    """The last checkpoint of one object, and the experiments that were current since."""

    link: ParentLink
    since: list[str] = field(default_factory=list)


# object -> (root, link) of its last checkpoint, over all followers of the process
_LATEST: weakref.WeakKeyDictionary[object, tuple[str, ParentLink]] = weakref.WeakKeyDictionary()


class Ancestry:
    """Follows live model objects (weakly held) through experiments, saves and loads.

    An object is known by itself, not by its wrappers: pass the unwrapped module.

    Args:
        place: the root; what another follower of the same root settled is known here, too.
    """

    def __init__(self, place: str = "") -> None:
        self._place = place
        self._tracks: weakref.WeakKeyDictionary[object, _Track] = weakref.WeakKeyDictionary()
        self._history: list[str] = []
        self._lock = threading.Lock()

    def enter(self, exp_hash: str) -> None:
        """Note that `exp_hash` is the current experiment from now on."""
        with self._lock:
            if not self._history or self._history[-1] != exp_hash:
                self._history.append(exp_hash)
                for track in self._tracks.values():
                    track.since.append(exp_hash)

    def meet(self, objects: Iterable[object]) -> None:
        """Note objects that are given to the current experiment; unknown ones are `fresh`."""
        with self._lock:
            for item in objects:
                if item not in self._tracks:
                    current = self._history[-1:]
                    self._tracks[item] = _Track(ParentLink(kind="fresh"), list(current))

    def settle(self, objects: Iterable[object], manifest: Manifest) -> None:
        """Note that the objects now hold exactly the weights of a checkpoint (saved or loaded)."""
        link = ParentLink(
            kind="checkpoint",
            exp_hash=manifest.name.exp_hash,
            step=manifest.name.step,
            revision=manifest.name.revision,
            manifest_digest=manifest.digest,
        )
        self.declare(objects, link)

    def declare(self, objects: Iterable[object], link: ParentLink) -> None:
        """State where the weights of the objects came from, known by other means."""
        with self._lock:
            for item in objects:
                self._tracks[item] = _Track(link, list(self._history[-1:]))
                _LATEST[item] = self._place, link

    def parent_of(self, objects: Iterable[object], exp_hash: str) -> ParentLink:
        """Return the parent of a checkpoint that is saved from `objects` into `exp_hash` now.

        `via` leaves out the experiment of the parent, where training went on before the change, and
        `exp_hash` itself at the end: both are in the ancestry anyway. Several objects (a dict of
        models) share a parent if they all have the same; otherwise its kind is `unknown`.
        """
        with self._lock:
            links = [self._link(item, exp_hash) for item in objects]
        if links and all(link == links[0] for link in links):
            return links[0]
        via = tuple(dict.fromkeys(v for link in links for v in link.via))
        return ParentLink(kind="unknown", via=via, exact=None)

    def _link(self, item: object, exp_hash: str) -> ParentLink:
        track = self._tracks.get(item)
        place, latest = _LATEST.get(item, ("", None))
        if latest is not None and place == self._place and (track is None or track.link != latest):
            return replace(latest, exact=None)  # another manager of this root saved or loaded it
        if (
            track is None
        ):  # never met: it may have been trained under any experiment of this session
            via = self._history[:-1] if self._history[-1:] == [exp_hash] else self._history
            return ParentLink(kind="fresh", via=tuple(via), exact=None if via else True)
        via = list(track.since)
        if via and via[-1] == exp_hash:
            via.pop()
        if via and via[0] == track.link.exp_hash:
            via.pop(0)
        exact = not via if track.link.kind in ("fresh", "checkpoint") else None
        return replace(track.link, via=tuple(via), exact=exact)


def graft(place: str, objects: Iterable[object], link: ParentLink, *, is_whole: bool) -> None:
    """Note that objects got weights of a checkpoint of the root `place`, by no follower of it.

    Whoever follows them in this process takes it over with the next save.

    Args:
        place: the root.
        objects: unwrapped modules.
        link: the checkpoint.
        is_whole: nothing that they held before is left. Otherwise an object that held the weights of
            another checkpoint descends from both; that is no single parent, and both are named.
    """
    for item in objects:
        before_place, before = _LATEST.get(item, ("", None))
        found = link
        if not is_whole and before is not None and before != link and before_place == place:
            names = [*before.via, before.exp_hash, *link.via, link.exp_hash]
            found = ParentLink(kind="unknown", via=tuple(dict.fromkeys(h for h in names if h)))
        _LATEST[item] = place, found
