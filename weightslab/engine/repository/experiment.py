"""The experiment record: `experiment.json`, written last; its appearance makes the experiment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import InvalidManifestError
from weightslab.engine.identity.canonical import SCHEME, combine, exp_hash_of
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository.manifest import check_schema
from weightslab.engine.values import parse_utc

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Components", "ExperimentRecord"]

SCHEMA: Final = "weightslab.experiment"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The component digests of an identity; None stands for a component that was not given."""

    model: str | None = None
    config: str | None = None
    data: str | None = None
    origin: str | None = None

    @property
    def digest(self) -> str:
        """`wl1:sha256:...` of the whole identity."""
        return combine(self.model, self.config, self.data, self.origin)

    @property
    def exp_hash(self) -> str:
        """The 16 hex digits that name the experiment."""
        return exp_hash_of(self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """What is known about an experiment besides its files.

    Attributes:
        components: digests of model, config, data and origin.
        created_at: aware UTC time of the first opening.
        excluded: dotted config keys that do not count.
        weak: marks of what could not be described from source, by module.
        environment: versions of Python, the libraries and the platform; never part of the hash.
        facts: numbers for people: `num_parameters`, `num_modules`, `num_samples`, `model_class`.
        changed_from: `{exp_hash, changes: [text, ...]}` of the experiment that this one was
            compared with when it began, None for the first.
        facets: optional parts of the identity that are switched on.
    """

    components: Components
    created_at: datetime
    excluded: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    changed_from: dict[str, Any] | None = None
    facets: tuple[str, ...] = ("model.trainable",)

    @property
    def exp_hash(self) -> str:
        """The 16 hex digits that name the experiment."""
        return self.components.exp_hash

    def to_bytes(self) -> bytes:
        """Render the sealed record."""
        return seal(
            {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "scheme": SCHEME,
                "exp_hash": self.exp_hash,
                "identity": {**asdict(self.components), "combined": self.components.digest},
                "created_at": self.created_at.isoformat(),
                "excluded": list(self.excluded),
                "weak": list(self.weak),
                "environment": self.environment,
                "facts": self.facts,
                "changed_from": self.changed_from,
                "facets": list(self.facets),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, *, exp_hash: str) -> ExperimentRecord:
        """Check and parse the record that lies in the folder `exp_hash`.

        Raises: TruncatedError, DigestMismatchError, InvalidManifestError, UnsupportedVersionError.
        """
        what = f"experiment record of {exp_hash}"
        document, _ = unseal(data, what=what)
        check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=what)
        try:
            identity = dict(document["identity"])
            combined = identity.pop("combined")
            record = cls(
                components=Components(**identity),
                created_at=parse_utc(document["created_at"]),
                excluded=tuple(document["excluded"]),
                weak=tuple(document["weak"]),
                environment=dict(document["environment"]),
                facts=dict(document["facts"]),
                changed_from=document["changed_from"],
                facets=tuple(document["facets"]),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidManifestError(f"{what} is not in order: {error}") from error
        if record.components.digest != combined or record.exp_hash != exp_hash:
            raise InvalidManifestError(
                f"{what} describes {combined!r:.90}, which does not belong in this folder"
            )
        return record
