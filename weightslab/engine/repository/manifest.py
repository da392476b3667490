"""The manifest: the small JSON record whose appearance commits a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import InvalidManifestError, UnsupportedVersionError
from weightslab.engine.jsonform import decode, seal, unseal
from weightslab.engine.repository.layout import (
    CheckpointName,
    parse_checkpoint_file,
    parse_config_name,
)
from weightslab.engine.values import FileRecord, ParentLink, TensorRecord, parse_utc

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["SCHEMA_VERSION", "Manifest"]

SCHEMA: Final = "weightslab.checkpoint"
SCHEMA_VERSION: Final = 1
_REQUIRED: Final = (
    "aliases",
    "created_at",
    "exp_hash",
    "experiment_digest",
    "files",
    "metadata",
    "metrics",
    "parent",
    "revision",
    "sequence",
    "state",
    "step",
    "tensors",
    "versions",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that was committed as one checkpoint.

    Attributes:
        name: experiment hash, step and revision.
        experiment_digest: `wl1:sha256:...` of the experiment, in full.
        sequence: 1 + the highest sequence seen in this experiment when the manifest was written.
        created_at: aware UTC time.
        metadata: tagged JSON given by the user.
        metrics: tagged JSON of name -> number.
        parent: where the weights came from.
        config_file: name of the config file in `hp/` that was current, None without a config.
        files: the files beside the manifest.
        tensors: `{part}/{key}` -> where the tensor lies; the key is the state_dict key or the path
            in the training state.
        aliases: `{part}/{key}` of a tied tensor that is not stored -> the one that is.
        state: tagged JSON of what is not a tensor, by part; tensors appear as references.
        versions: versions of the libraries that wrote it.
        derived_from: manifest digest of the revision this one was made from (thinning), else None.
        digest: `sha256:...` of the file; empty until written.
    """

    name: CheckpointName
    experiment_digest: str
    sequence: int
    created_at: datetime
    metadata: Any = None
    metrics: dict[str, Any] = field(default_factory=dict)
    parent: ParentLink
    config_file: str | None = None
    files: tuple[FileRecord, ...] = ()
    tensors: dict[str, TensorRecord] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    derived_from: str | None = None
    digest: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensor files."""
        return sum(file.size_bytes for file in self.files)

    def content(self) -> dict[str, Any]:
        """Return what makes two saves of one step identical: values, not names or times."""
        return {
            "tensors": {k: (t.dtype, t.shape, t.digest) for k, t in self.tensors.items()},
            "parts": self.parts,
            "aliases": self.aliases,
            "state": self.state,
            "metadata": self.metadata,
            "metrics": self.metrics,
            "config_file": self.config_file,
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """What was saved: `model` or `model.{name}` ..., and `training`; sorted.

        A part need not have a file of its own: its tensors may all lie in files that are reused.
        """
        return tuple(sorted({key.partition("/")[0] for key in self.tensors} | self.state.keys()))

    @property
    def model_parts(self) -> tuple[str, ...]:
        """The parts that are models, sorted."""
        return tuple(part for part in self.parts if part != "training")

    def weights_file(self) -> str:
        """Return the name of the file with the weights, of the first model where there are several.

        Where all tensors of that model are reused it is the file that holds most of them.

        Raises: InvalidManifestError if the checkpoint holds no model.
        """
        if not self.model_parts:
            raise InvalidManifestError(f"checkpoint {self.name.stem} holds no model")
        part = self.model_parts[0]
        own = [file.name for file in self.files if file.part == part]
        held: dict[str, int] = {}
        for tensor in self.tensors_of_part(part).values():
            held[tensor.file] = held.get(tensor.file, 0) + tensor.size_bytes
        found = own or sorted(held, key=lambda name: (-held[name], name))
        if not found:
            raise InvalidManifestError(f"checkpoint {self.name.stem} has no file of {part}")
        return found[0]

    def tensors_of_part(self, part: str) -> dict[str, TensorRecord]:
        """Return name -> record of the tensors of a part, in whichever file each of them lies."""
        start = len(part) + 1
        return {k[start:]: t for k, t in self.tensors.items() if k.startswith(f"{part}/")}

    def tensors_in(self, file: FileRecord) -> dict[str, TensorRecord]:
        """Return `{part}/{name}` -> record of the tensors of this checkpoint that lie in `file`.

        A reused file may hold more than these.
        """
        return {k: t for k, t in self.tensors.items() if t.file == file.name}

    def to_bytes(self) -> bytes:
        """Render the sealed record."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "exp_hash": self.name.exp_hash,
            "step": self.name.step,
            "revision": self.name.revision,
            "experiment_digest": self.experiment_digest,
            "sequence": self.sequence,
            "created_at": self.created_at.isoformat(),
            "metadata": self.metadata,
            "metrics": self.metrics,
            "parent": _fields(self.parent),
            "config_file": self.config_file,
            "files": {f.name: _without(_fields(f), "name") for f in self.files},
            "tensors": {k: _fields(t) for k, t in self.tensors.items()},
            "aliases": self.aliases,
            "state": self.state,
            "versions": self.versions,
            "derived_from": self.derived_from,
        }
        return seal(document)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, *, name: CheckpointName) -> Manifest:
        """Check and parse a manifest that lies under `name`.

        Raises: TruncatedError, DigestMismatchError, InvalidManifestError, UnsupportedVersionError.
        """
        what = f"manifest {name.stem}.json"
        document, digest = unseal(data, what=what)
        check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=what)
        missing = [key for key in _REQUIRED if key not in document]
        if missing:
            raise InvalidManifestError(f"{what} lacks {', '.join(missing)}")
        try:
            manifest = cls._from_document(document)
        except InvalidManifestError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidManifestError(f"{what} is not in order: {error}") from error
        if manifest.name != name:
            raise InvalidManifestError(
                f"{what} says it is {manifest.name.stem}", hint="it was renamed or swapped"
            )
        return replace(manifest, digest=digest)

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Manifest:
        name = CheckpointName(
            exp_hash=_typed(document["exp_hash"], str),
            step=_count(document["step"]),
            revision=_count(document["revision"], least=1),
        )
        files = tuple(
            _file(name, file, record) for file, record in _typed(document["files"], dict).items()
        )
        known = {file.name for file in files}
        tensors = {k: _tensor(v, known) for k, v in _typed(document["tensors"], dict).items()}
        aliases = _typed(document["aliases"], dict)
        if any(target not in tensors for target in aliases.values()):
            raise InvalidManifestError("an alias names a tensor that the manifest does not have")
        return cls(
            name=name,
            experiment_digest=_typed(document["experiment_digest"], str),
            sequence=_count(document["sequence"], least=1),
            created_at=parse_utc(document["created_at"]),
            metadata=document["metadata"],
            metrics=_typed(document["metrics"], dict),
            parent=_parent(_typed(document["parent"], dict)),
            config_file=_config_file(name, document.get("config_file")),
            files=files,
            tensors=tensors,
            aliases=aliases,
            state=_typed(document["state"], dict),
            versions=_typed(document["versions"], dict),
            derived_from=document.get("derived_from"),
        )

    def metric_values(self) -> dict[str, float]:
        """Return the metrics as numbers.

        Raises: FormatError if one is no number.
        """
        values: dict[str, float] = _typed(decode(self.metrics, path="metrics"), dict)
        for name, value in values.items():
            if type(value) not in (int, float):
                raise InvalidManifestError(f"metric {name!r:.60} is {value!r:.60}, not a number")
        return values


def check_schema(document: dict[str, Any], *, schema: str, version: int, what: str) -> None:
    """Raise if a record is of another kind, or of a newer version than this package reads.

    Raises: InvalidManifestError, UnsupportedVersionError.
    """
    found = document.get("schema")
    if found != schema:
        raise InvalidManifestError(f"{what} is a {found!r} record, not {schema!r}")
    number = document.get("schema_version")
    if type(number) is not int or number < 1:
        raise InvalidManifestError(f"{what} has the schema version {number!r}")
    if number > version:
        raise UnsupportedVersionError(
            f"{what} was written with schema version {number}; this package reads up to {version}",
            hint="pip install --upgrade weightslab",
        )


def _file(name: CheckpointName, file: str, document: Any) -> FileRecord:
    found = parse_checkpoint_file(file)
    if found is None or found[0] != name or not found[1].endswith("safetensors"):
        raise InvalidManifestError(f"{file!r} is not a file of checkpoint {name.stem}")
    record = FileRecord(name=file, **_typed(document, dict))
    for text in (record.part, record.digest, record.header_digest, record.codec):
        _typed(text, str)
    _count(record.size_bytes)
    _count(record.header_size_bytes)
    return record


def _tensor(document: Any, files: set[str]) -> TensorRecord:
    record = _typed(document, dict)
    shape = tuple(_count(n) for n in record["shape"])
    tensor = TensorRecord(**{**record, "shape": shape})
    if tensor.file not in files:
        raise InvalidManifestError(f"a tensor lies in {tensor.file!r}, which is not listed")
    _typed(tensor.dtype, str)
    _typed(tensor.digest, str)
    _count(tensor.offset)
    _count(tensor.size_bytes)
    return tensor


def _parent(document: dict[str, Any]) -> ParentLink:
    via = tuple(_typed(h, str) for h in _typed(document.get("via", []), list))
    link = ParentLink(**{**document, "via": via})
    for text in (link.exp_hash, link.manifest_digest):
        _optional(text, str)
    for number in (link.step, link.revision):
        _optional(number, int)
    _optional(link.exact, bool)
    return link


def _config_file(name: CheckpointName, file: Any) -> str | None:
    if _optional(file, str) is not None and parse_config_name(name.exp_hash, file) is None:
        raise InvalidManifestError(f"{file!r:.60} is not a config file of {name.exp_hash}")
    return file  # type: ignore[no-any-return] # a str or None, checked


def _optional(value: Any, kind: type) -> Any:
    return None if value is None else _typed(value, kind)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise InvalidManifestError(f"{value!r:.60} is not a {kind.__name__}")
    return value


def _count(value: Any, *, least: int = 0) -> int:
    if type(value) is not int or value < least:
        raise InvalidManifestError(f"{value!r:.60} is not an integer >= {least}")
    return value


def _fields(record: ParentLink | FileRecord | TensorRecord) -> dict[str, Any]:
    """Return the fields of a flat record; `asdict` would copy each value deeply (0.1 ms a record)."""
    return {name: getattr(record, name) for name in record.__slots__}


def _without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key}
