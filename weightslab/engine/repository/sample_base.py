"""The base file of a delta: found again in the root, linked beside the delta, or written.

    data/{exp_hash}_samples.base.h5     the same bytes for every experiment that goes back to it

Each experiment owns a name of the file, so any folder can be deleted or copied alone. What is linked
was verified by this process: it wrote the bytes or read them all, and the file is still that one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    DigestMismatchError,
    MissingObjectError,
    ObjectNotFoundError,
)
from weightslab.engine.identity.overlay import Overlay
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.data_file import (
    add_sidecar,
    read_data_file,
    sidecar_key,
    stamp_of,
)
from weightslab.engine.repository.sample_file import (
    base_to_bytes,
    base_token,
    delta_to_bytes,
    samples_from_bytes,
    samples_to_bytes,
    token_of,
)

if TYPE_CHECKING:
    from weightslab.engine.identity.base import Base
    from weightslab.engine.repository.data_file import Stamp
    from weightslab.engine.storage.store import Store

__all__ = ["drop_unneeded_base", "read_sample_set", "remember_written", "render_samples"]

MIN_FOR_DELTA: Final = 4096  # samples; smaller sets are kilobytes anyway, and easier to look at
_MAX_PLACES: Final = 8  # names of one base that are remembered


@dataclass(frozen=True, slots=True)
class _Place:
    """A name under which a base lies, and what the file was when it was verified."""

    store: str
    key: str
    stamp: Stamp


_places: WeakKeyDictionary[Base, list[_Place]] = WeakKeyDictionary()
_bases: WeakValueDictionary[tuple[str, Stamp], Base] = WeakValueDictionary()
_lock = threading.Lock()


def _remember(store: Store, key: str, base: Base) -> None:
    stamp = stamp_of(store, key)
    if stamp is not None:
        place = _Place(store.describe(), key, stamp)
        with _lock:
            known = [p for p in _places.get(base, []) if p != place]
            _places[base] = [place, *known[: _MAX_PLACES - 1]]
            _bases[store.describe(), stamp] = base


# ---------------------------------------------------------------- reading
def read_sample_set(store: Store, exp_hash: str) -> SampleSet:
    """Return the samples of an experiment, every byte that is needed checked.

    Raises: ObjectNotFoundError if there are none, IntegrityError, FormatError.
    """
    key = layout.data_key(exp_hash)
    name = key.rpartition("/")[2]
    data = read_data_file(store, key)
    token = base_token(data, what=name)
    if token is not None:
        base = _read_base(store, layout.samples_base_key(exp_hash), token)
        return samples_from_bytes(data, what=name, base=base)
    known = _known(store, key)
    if known is not None:
        return SampleSet(Overlay.over(known), frozen=True)
    samples = samples_from_bytes(data, what=name)
    _remember(store, key, samples.overlay().base)
    return samples


def _known(store: Store, key: str) -> Base | None:
    stamp = stamp_of(store, key)
    return None if stamp is None else _bases.get((store.describe(), stamp))


def _read_base(store: Store, key: str, token: tuple[str, str]) -> Base:
    name = key.rpartition("/")[2]
    try:
        data = read_data_file(store, key)
    except ObjectNotFoundError as error:
        raise MissingObjectError(f"the samples need {name}, which is missing") from error
    base = _known(store, key)
    if base is None:
        base = samples_from_bytes(data, what=name).overlay().base
        _remember(store, key, base)
    if token_of(base) != token:
        raise DigestMismatchError(
            f"{name} holds the set {token_of(base)[0]}, the samples need {token[0]}",
            hint="it was exchanged",
        )
    return base


# ---------------------------------------------------------------- writing
def render_samples(store: Store, exp_hash: str, samples: SampleSet) -> bytes:
    """Return the samples file, and see to it that the base it needs lies beside it.

    A delta where the base is in this root already or the set was changed since it was built, the
    whole set otherwise, and for small ones.
    """
    overlay = samples.overlay()
    base = overlay.base
    if len(base) < MIN_FOR_DELTA or overlay.num_changes() > len(base) // 10:
        return samples_to_bytes(samples)
    linked = _link_base(store, exp_hash, base)
    if linked is None and not overlay.num_changes():
        return samples_to_bytes(samples)
    if linked is None:
        linked = _write_base(store, exp_hash, base)
    return delta_to_bytes(samples) if linked else samples_to_bytes(samples)


def remember_written(store: Store, exp_hash: str, samples: SampleSet) -> None:
    """Remember that a samples file, just written by this process, is the base of later deltas."""
    key, overlay = layout.data_key(exp_hash), samples.overlay()
    if len(overlay.base) < MIN_FOR_DELTA or overlay.num_changes():
        return
    if base_token(store.map(key), what=key.rpartition("/")[2]) is None:
        _remember(store, key, overlay.base)


def _link_base(store: Store, exp_hash: str, base: Base) -> bool | None:
    """Link the base from where it lies in this root; None if it does not, False if it cannot be."""
    key = layout.samples_base_key(exp_hash)
    with _lock:
        places = [p for p in _places.get(base, []) if p.store == store.describe()]
    for place in places:
        if stamp_of(store, place.key) != place.stamp:
            continue  # deleted, or another file by now
        try:
            if not store.link(place.key, key):
                data = read_data_file(store, place.key)
                store.put(key, [data], if_absent=True)
        except AlreadyExistsError:
            pass  # of another process, or of one that died here
        except CheckpointError:
            continue  # deleted or damaged meanwhile: the next name, or the whole set
        return _accept(store, key, base)
    return None


def _write_base(store: Store, exp_hash: str, base: Base) -> bool:
    key = layout.samples_base_key(exp_hash)
    if store.put(key, [base_to_bytes(base)], if_absent=True):
        _remember(store, key, base)
    return _accept(store, key, base)


def _accept(store: Store, key: str, base: Base) -> bool:
    """Give the base file its sidecar; say whether it is the one that is needed."""
    add_sidecar(store, key)
    known = _known(store, key)
    if known is None:  # not a file of this process
        try:
            known = _read_base(store, key, token_of(base))
        except CheckpointError:
            return False
    if token_of(known) != token_of(base):
        return False
    _remember(store, key, base)
    return True


def drop_unneeded_base(store: Store, exp_hash: str) -> list[str]:
    """Remove a base file whose samples file is a whole one: of two creators the other was first.

    Returns: the names removed.
    """
    key, own = layout.samples_base_key(exp_hash), layout.data_key(exp_hash)
    present = [k for k in (key, sidecar_key(key)) if store.stat(k) is not None]
    if not present or store.stat(own) is None:
        return []
    try:
        if base_token(read_data_file(store, own), what=own.rpartition("/")[2]) is not None:
            return []
    except CheckpointError:
        return []  # nothing is removed beside a damaged file
    return [k.rpartition("/")[2] for k in present if store.delete(k)]
