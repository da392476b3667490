"""What a catalog remembers for lineage and audits beyond the entries of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from weightslab.engine.repository import layout
from weightslab.engine.repository.index_origins import (
    count_checkpoints,
    get_crossings,
    get_samplers,
    get_samples,
    put_origin,
    put_samples,
)
from weightslab.engine.repository.origins import (
    Origins,
    crosses,
    in_sequence,
    sampled_from_text,
    sampled_to_text,
    samplers_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightslab.engine.repository.catalog import CheckpointEntry, ScanCatalog
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.indexed import IndexedCatalog
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.repository.origins import Sampled

__all__ = ["IndexedMemory", "Memory", "ScanMemory", "note_origin"]


class Memory(Protocol):
    """What is remembered; everything that is not has to be read."""

    def origins(self) -> Origins:
        """Return where the experiments came from."""
        ...

    def samplers(self, exp_hash: str) -> dict[CheckpointName, Sampled]:
        """Return what is remembered of samplers; a checkpoint that is not there has to be read."""
        ...

    def recall_samples(self) -> dict[str, str]:
        """Return what `keep_samples` was given for samples files that have not changed since."""
        ...

    def keep_samples(self, made: Mapping[str, str], stamps: Mapping[str, str | None]) -> None:
        """Remember what was made of samples files, where `stamps` are those taken before."""
        ...

    def stamp_samples(self, exp_hash: str) -> str | None:
        """Return what tells that the samples file of an experiment is the same; None while unsure."""
        ...


class ScanMemory:
    """Remembers nothing."""

    def __init__(self, catalog: ScanCatalog) -> None:
        self._catalog = catalog

    def origins(self) -> Origins:
        # docstring inherited
        catalog = self._catalog
        return Origins.of(e for h in catalog.exp_hashes() for e in catalog.checkpoints(h))

    def samplers(self, exp_hash: str) -> dict[CheckpointName, Sampled]:  # noqa: ARG002
        # docstring inherited
        return {}

    def recall_samples(self) -> dict[str, str]:
        # docstring inherited
        return {}

    def keep_samples(self, made: Mapping[str, str], stamps: Mapping[str, str | None]) -> None:
        # docstring inherited
        pass

    def stamp_samples(self, exp_hash: str) -> str | None:  # noqa: ARG002
        # docstring inherited
        return None


class IndexedMemory:
    """Remembers in the index of a catalog, of which it is a part."""

    def __init__(self, catalog: IndexedCatalog) -> None:
        self._catalog = catalog

    def origins(self) -> Origins:
        """Return where the experiments came from. O(experiments + crossings) once looked at."""

        def look() -> Origins:
            index = self._catalog._look_around()
            return Origins(
                num_checkpoints=count_checkpoints(index),
                crossings=in_sequence(get_crossings(index)),
            )

        return self._catalog._answer(look)

    def samplers(self, exp_hash: str) -> dict[CheckpointName, Sampled]:
        # docstring inherited
        catalog = self._catalog

        def look() -> dict[CheckpointName, Sampled]:
            if catalog._index is None or exp_hash not in catalog._loaded:
                return {}
            texts = get_samplers(catalog._index, exp_hash)
            told = {name: sampled_from_text(text) for name, text in texts.items()}
            rows = catalog._rows.get(exp_hash, {}).items()
            return {n: told.get(n, (r.entry.digest, ())) for n, r in rows if r.is_indexed}

        return catalog._answer(look)

    def recall_samples(self) -> dict[str, str]:
        # docstring inherited
        def look() -> dict[str, str]:
            # a samples file takes longer than opening the index
            made = get_samples(self._catalog._open())
            return {h: body for h, (stamp, body) in made.items() if stamp == self.stamp_samples(h)}

        return self._catalog._answer(look)

    def keep_samples(self, made: Mapping[str, str], stamps: Mapping[str, str | None]) -> None:
        # docstring inherited
        def keep() -> None:
            rows = {h: (stamp, body) for h, body in made.items() if (stamp := stamps.get(h))}
            if rows:
                put_samples(self._catalog._open(), rows)

        self._catalog._answer(keep)

    def stamp_samples(self, exp_hash: str) -> str | None:
        # docstring inherited
        stamps = self._catalog._stamps
        own = stamps.file(layout.data_key(exp_hash))
        base = stamps.file(layout.samples_base_key(exp_hash))
        return f"{own} {base}" if own and base != "" else None


def note_origin(index: Index, entry: CheckpointEntry, manifest: Manifest | None) -> None:
    """Write into the index what a manifest tells of its origin, if it does."""
    if manifest is None:
        return
    text = sampled_to_text(manifest.digest, samplers_of(manifest))
    is_crossing = crosses(entry.name.exp_hash, entry.parent)
    if text or is_crossing:
        put_origin(index, entry.name, crosses=is_crossing, samplers=text)
