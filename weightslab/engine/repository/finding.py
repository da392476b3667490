"""Finding tensors: from digests to places, over the rows of the index, each proven by a manifest."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository.catalog import places_of, read_manifest
from weightslab.engine.repository.index_rows import content_key

if TYPE_CHECKING:
    from weightslab.engine.repository.catalog import TensorPlace
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.stamps import LocalStamps
    from weightslab.engine.storage.store import Store

__all__ = ["TensorFinder"]

_MAX_MANIFESTS: Final = 32  # read for one answer; a save links 8 files at most
_MAX_USERS: Final = 8  # of one file, tried in turn
_MAX_REMEMBERED: Final = 50_000  # places in memory, 0.5 KB each


class TensorFinder:
    """Looks up places in an index and reads the manifests they lie in. Not thread-safe."""

    def __init__(self, store: Store, stamps: LocalStamps) -> None:
        self._store = store
        self._stamps = stamps
        self._places: OrderedDict[tuple[CheckpointName, str], dict[str, TensorPlace]]
        self._places = OrderedDict()
        self._num_places = 0
        self._num_left = 0

    def locate(self, index: Index, wanted: set[str]) -> dict[str, list[TensorPlace]]:
        """Return digest -> places; of each digest the newest 8 contents, of each content one."""
        files: dict[int, set[str]] = {}
        for digest in wanted:
            for file in index.files_with(digest):
                files.setdefault(file, set()).add(digest)
        found: dict[str, list[TensorPlace]] = {}
        self._num_left = _MAX_MANIFESTS
        while files and self._num_left > 0:
            # what holds most of what is still missing comes first, then what holds most at all
            file = max(files, key=lambda f: (len(files[f] - found.keys()), len(files[f]), f))
            for place in self._places_in(index, file, files.pop(file)):
                found.setdefault(place.tensor.digest, []).append(place)
        return found

    def _places_in(self, index: Index, file: int, digests: set[str]) -> list[TensorPlace]:
        """Return where the tensors lie in a file, as the manifests say that have it."""
        content, missing, found = index.content(file), set(digests), []
        for name in index.users(file, at_most=_MAX_USERS):
            places = self._read_places(name)
            here = [places[d] for d in missing if d in places]
            here = [place for place in here if content_key(place.file) == content]
            missing -= {place.tensor.digest for place in here}
            found += here
            if not missing:
                break
        return found

    def _read_places(self, name: CheckpointName) -> dict[str, TensorPlace]:
        stamp = self._stamps.file(name.manifest_key)
        if stamp and (name, stamp) in self._places:
            self._places.move_to_end((name, stamp))
            return self._places[name, stamp]
        self._num_left -= 1
        try:
            places = places_of(read_manifest(self._store, name))
        except CheckpointError:
            return {}  # what cannot be read offers nothing; the listing says that it is damaged
        if stamp:
            self.remember(name, stamp, places)
        return places

    def remember(self, name: CheckpointName, stamp: str, places: dict[str, TensorPlace]) -> None:
        """Keep what a manifest with this stamp says, so that it need not be read again."""
        if (name, stamp) in self._places or len(places) > _MAX_REMEMBERED:
            return
        self._places[name, stamp] = places
        self._num_places += len(places)
        while self._num_places > _MAX_REMEMBERED:
            _, dropped = self._places.popitem(last=False)
            self._num_places -= len(dropped)
