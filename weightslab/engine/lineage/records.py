"""Finding the checkpoint that a parent link means: the very one, not what lies in its place now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import entry_of, read_manifest
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import ParentLink

    class Holder(Protocol):
        """A root: what it is made of, and how a question finds what it is about."""

        store: LocalStore
        catalog: Catalog

        def get_hash(self, prefix: str) -> str: ...
        def at(self, reference: str) -> CheckpointEntry: ...
        def explain(self, old: str, new: str) -> Explanation: ...

    from weightslab.engine.storage.local import LocalStore
    from weightslab.engine.values import Explanation

__all__ = ["Found", "Hop", "Records", "reference_of"]

PRESENT: Final = "present"
THINNED: Final = "thinned"
TRASHED: Final = "trashed"
QUARANTINED: Final = "quarantined"
MISSING: Final = "missing"
REPLACED: Final = "replaced"
DAMAGED: Final = "damaged"


def reference_of(name: CheckpointName) -> str:
    """Return how people name a checkpoint: `3f2a9c1b00d14e77@100`, `...@100.r2`."""
    revision = "" if name.revision == 1 else f".r{name.revision}"
    return f"{name.exp_hash}@{name.step}{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a checkpoint.

    Attributes:
        name: the checkpoint; of one that was thinned, the revision that holds its weights now.
        digest: of its manifest, as the child says or as it is.
        state: `present`, `thinned`, `trashed`, `quarantined`; its record is gone: `missing`,
            `replaced` (another one has its name), `damaged`.
        entry: its record; None where that is gone.
    """

    name: CheckpointName
    digest: str
    state: str = PRESENT
    entry: CheckpointEntry | None = None

    @property
    def reference(self) -> str:
        """How people name it."""
        return reference_of(self.name)

    @property
    def why_gone(self) -> str:
        """Why its own past is unknown, in words."""
        return {
            REPLACED: f"another checkpoint has the name {self.reference} now",
            DAMAGED: f"the manifest of {self.reference} is damaged",
        }.get(self.state, f"the record of {self.reference} is gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A checkpoint on a way back, and where its weights came from.

    Attributes:
        found: the checkpoint.
        link: its parent link; None where its record is gone.
        gap: why it is not known exactly what came before it; None where it is.
        ends: nothing is known before it, or there is nothing.
    """

    found: Found
    link: ParentLink | None
    gap: str | None
    ends: bool


class Records:
    """The checkpoints of a root by name, each experiment looked at once. A snapshot, not thread-safe.

    Args:
        store: where the root lives.
        catalog: what it has.
    """

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._experiments: dict[str, dict[CheckpointName, CheckpointEntry]] = {}
        self._resolved: dict[tuple[str, int, int, str], Found] = {}
        self._aside: dict[str, list[str]] = {}

    def entries(self, exp_hash: str) -> dict[CheckpointName, CheckpointEntry]:
        """Return the checkpoints of an experiment in the order of their commit; none if it is gone."""
        known = self._experiments.get(exp_hash)
        if known is None:
            entries = self._catalog.checkpoints(exp_hash) if layout.is_exp_hash(exp_hash) else []
            known = self._experiments[exp_hash] = {entry.name: entry for entry in entries}
        return known

    def found(self, entry: CheckpointEntry) -> Found:
        """Return a listed checkpoint."""
        state = PRESENT if entry.damaged is None else DAMAGED
        good = entry if entry.damaged is None else None
        return Found(name=entry.name, digest=entry.digest, state=state, entry=good)

    # ------------------------------------------------------------ parents
    def resolve(self, link: ParentLink) -> Found | None:
        """Return the checkpoint that a link means; None if it names none.

        What has another digest than the link says is another checkpoint.
        """
        if link.kind != "checkpoint" or link.exp_hash is None or link.step is None:
            return None
        key = link.exp_hash, link.step, link.revision or 1, link.manifest_digest or ""
        if key not in self._resolved:
            self._resolved[key] = self._resolve(*key)
        return self._resolved[key]

    def _resolve(self, exp_hash: str, step: int, revision: int, digest: str) -> Found:
        name = CheckpointName(exp_hash=exp_hash, step=step, revision=revision)
        entry = self.entries(exp_hash).get(name)
        if entry is not None and digest and entry.digest == digest:
            return self.found(entry)
        if not layout.is_exp_hash(exp_hash):
            return Found(name=name, digest=digest, state=MISSING)
        thin = self._thinned(name, digest)
        if thin is not None:
            return Found(name=thin.name, digest=thin.digest, state=THINNED, entry=thin)
        for state, folder in ((TRASHED, layout.TRASH), (QUARANTINED, layout.QUARANTINE)):
            aside = self._set_aside(name, digest, folder)
            if aside is not None:
                return Found(name=name, digest=digest, state=state, entry=aside)
        if entry is None:
            return Found(name=name, digest=digest, state=MISSING)
        state = REPLACED if entry.damaged is None else DAMAGED
        return Found(name=name, digest=digest, state=state)

    def _thinned(self, name: CheckpointName, digest: str) -> CheckpointEntry | None:
        """Return the later revision that says it was made from this one by thinning."""
        for other, entry in self.entries(name.exp_hash).items():
            is_later = other.step == name.step and other.revision > name.revision
            if is_later and entry.damaged is None:
                manifest = self._read(other)
                if manifest is not None and digest and manifest.derived_from == digest:
                    return entry
        return None

    def _read(self, name: CheckpointName) -> Manifest | None:
        try:
            return read_manifest(self._store, name)
        except CheckpointError:
            return None  # deleted or damaged since it was listed

    def _set_aside(self, name: CheckpointName, digest: str, folder: str) -> CheckpointEntry | None:
        """Return the record of a checkpoint in the trash or the quarantine, by its digest."""
        for place in self._list_aside(folder):
            stem = place.rstrip("/")
            if stem != name.stem and stem.rpartition(".")[0] != name.stem:
                continue
            try:
                data = self._store.map(f"{folder}{stem}/{name.stem}.json")
                manifest = Manifest.from_bytes(data, name=name)
            except CheckpointError:
                continue  # restored meanwhile, or damaged: not the record that is looked for
            if manifest.digest == digest:
                return entry_of(manifest)
        return None

    def _list_aside(self, folder: str) -> list[str]:
        if folder not in self._aside:
            self._aside[folder] = self._store.list(folder)
        return self._aside[folder]

    def experiments_aside(self) -> set[str]:
        """Return the experiments with something in the trash or the quarantine."""
        places = [n for f in (layout.TRASH, layout.QUARANTINE) for n in self._list_aside(f)]
        return {place[:16] for place in places}

    # ------------------------------------------------------------ the way back
    def hop(self, found: Found) -> tuple[Hop, Found | None]:
        """Return a checkpoint with what is known of its parent, and the parent."""
        if found.entry is None or found.entry.parent is None:
            return Hop(found=found, link=None, gap=found.why_gone, ends=True), None
        link = found.entry.parent
        parent = self.resolve(link)
        gap = _gap_of(found, link, parent)
        return Hop(found=found, link=link, gap=gap, ends=parent is None), parent

    def way_back(self, found: Found) -> Iterator[Hop]:
        """Yield the checkpoint and those before it, the newest first.

        Ends where a record is gone, and at what was met before: links may be forged.
        """
        seen: set[CheckpointName] = set()
        at: Found | None = found
        while at is not None:
            hop, parent = self.hop(at)
            seen.add(at.name)
            if parent is not None and parent.name in seen:
                gap = f"{at.reference} says it came from {parent.reference}, which came from it: forged"
                yield Hop(found=at, link=hop.link, gap=gap, ends=True)
                return
            yield hop
            at = parent


def _gap_of(found: Found, link: ParentLink, parent: Found | None) -> str | None:
    if link.kind == "import":
        return f"the weights of {found.reference} were imported"
    if link.kind != "fresh" and parent is None:
        return f"where the weights of {found.reference} came from is unknown"
    if link.exact is None:
        return f"what was current before {found.reference} since its parent is unknown"
    if link.via:
        return f"before {found.reference} it went through {', '.join(link.via)}: no step was saved"
    return None
