"""The files of the components: read, decoded, and held against the digests of the record.

A file that was exchanged for another valid one (of another experiment, of another time) does not
have the digest that the record names; reading it is an error, like any other damage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import DigestMismatchError, InvalidManifestError
from weightslab.engine.jsonform import seal, seal_text, unseal, unseal_text
from weightslab.engine.repository import layout
from weightslab.engine.repository.config_file import config_from_bytes
from weightslab.engine.repository.manifest import check_schema

if TYPE_CHECKING:
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.repository.experiment import ExperimentRecord
    from weightslab.engine.storage.store import Store

__all__ = ["read_architecture", "read_architecture_text", "read_config", "read_samples"]

SCHEMA: Final = "weightslab.architecture"
SCHEMA_VERSION: Final = 1


def architecture_to_bytes(exp_hash: str, description: dict[str, Any]) -> bytes:
    """Render `{exp_hash}_architecture.json`."""
    return seal(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "exp_hash": exp_hash,
            "description": description,
        }
    )


def read_architecture(store: Store, record: ExperimentRecord) -> dict[str, Any]:
    """Return the stored description of the model.

    Raises: ObjectNotFoundError if there is none, IntegrityError, FormatError.
    """
    from weightslab.engine.identity.architecture import digest_of_document

    key = layout.architecture_key(record.exp_hash)
    name = key.rpartition("/")[2]
    document, _ = unseal(store.map(key), what=name)
    check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=name)
    if document.get("exp_hash") != record.exp_hash:
        raise InvalidManifestError(
            f"{name} is of {document.get('exp_hash')!r:.40}", hint="it was exchanged"
        )
    description: dict[str, Any] = document.get("description", {})
    try:
        found = digest_of_document(description)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InvalidManifestError(f"{name} is not in order: {error!r}") from error
    _check_digest(name, found, record.components.model)
    return description


def architecture_text_to_bytes(exp_hash: str, text: str) -> bytes:
    """Render `{exp_hash}_architecture.txt`; its first line is its name."""
    name = layout.architecture_key(exp_hash, "txt").rpartition("/")[2]
    return seal_text(f"# {name}\n{text}")


def read_architecture_text(store: Store, exp_hash: str) -> str:
    """Return the picture of the model for the eye.

    Raises: ObjectNotFoundError if there is none, IntegrityError, FormatError.
    """
    key = layout.architecture_key(exp_hash, "txt")
    name = key.rpartition("/")[2]
    head, _, text = unseal_text(store.map(key), what=name).partition("\n")
    if head != f"# {name}":
        raise InvalidManifestError(f"{name} says it is {head[2:]!r}", hint="it was exchanged")
    return text


def read_config(
    store: Store, record: ExperimentRecord, *, file: str | None = None
) -> dict[str, Any]:
    """Return the config of the identity, or the one in another `file` of `hp/`.

    Raises: ObjectNotFoundError if there is none, IntegrityError, FormatError.
    """
    from weightslab.engine.identity.config import describe_config

    own = layout.config_key(record.exp_hash)
    key = own if file is None else layout.config_folder(record.exp_hash) + file
    name = key.rpartition("/")[2]
    plain = config_from_bytes(store.map(key), name=name)
    if key == own:
        found = describe_config(plain, exclude=record.excluded).digest
        _check_digest(name, found, record.components.config)
    return plain


def read_samples(store: Store, record: ExperimentRecord) -> SampleSet:
    """Return the active samples.

    Raises: ObjectNotFoundError if there are none, IntegrityError, FormatError.
    """
    from weightslab.engine.repository.sample_base import read_sample_set  # brings numpy

    name = layout.data_key(record.exp_hash).rpartition("/")[2]
    samples = read_sample_set(store, record.exp_hash)
    _check_digest(name, samples.digest, record.components.data)
    return samples


def _check_digest(name: str, found: str, expected: str | None) -> None:
    if found != expected:
        raise DigestMismatchError(f"{name} holds {found}, but the experiment is of {expected}")
