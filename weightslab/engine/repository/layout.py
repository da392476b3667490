"""The names of everything in a root: keys from facts, facts from names. Pure.

    checkpoints/{exp_hash}/experiment.json
    checkpoints/{exp_hash}/model/{exp_hash}_architecture.json, .txt
    checkpoints/{exp_hash}/model/{exp_hash}_step_000100[.r2].json                  manifest
    checkpoints/{exp_hash}/model/{exp_hash}_step_000100[.r2].safetensors           one model
    checkpoints/{exp_hash}/model/{exp_hash}_step_000100[.r2].model.{name}.safetensors   named ones
    checkpoints/{exp_hash}/model/{exp_hash}_step_000100[.r2].training.safetensors
        {exp_hash}_step_000100[.r2][.training].partial.safetensors    only the tensors that changed
        {exp_hash}_step_000100[.r2].ref1.safetensors                  hard link to an older file
        {exp_hash}_step_000100[.r2].stable.safetensors                what has not changed for a while
    checkpoints/{exp_hash}/model/{exp_hash}_step_000100[.r2].pending               hold of a writer
    checkpoints/{exp_hash}/hp/{exp_hash}_config[.r2].yaml
    checkpoints/{exp_hash}/data/{exp_hash}_samples.h5, {exp_hash}_{backup}.h5 and {file}.json
    checkpoints/{exp_hash}/data/{exp_hash}_samples.base.h5          what a delta refers to
    checkpoints/{exp_hash}/notes/{time}_{kind}_{digest}.json        names, notes, tags, pins
    checkpoints/{exp_hash}/provenance/{time}_{digest}.json          sessions that opened it
    checkpoints/.quarantine/{exp_hash}_step_000100[.r2]/            damaged, set aside, with why.json
    checkpoints/.trash/{exp_hash}_step_000100[.r2]/                 deleted, to be had back, with why.json

Steps have at least six digits and are read as integers; revision 1 is not written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from weightslab.engine.errors import FormatError

__all__ = ["CHECKPOINTS", "QUARANTINE", "TRASH", "CheckpointName", "is_exp_hash"]

CHECKPOINTS: Final = "checkpoints/"
QUARANTINE: Final = "checkpoints/.quarantine/"
TRASH: Final = "checkpoints/.trash/"
_EXP_HASH: Final = re.compile(r"[0-9a-f]{16}\Z")
_CHECKPOINT: Final = re.compile(
    r"([0-9a-f]{16})_step_(\d{6,18})(?:\.r([1-9]\d{0,8}))?\.([A-Za-z0-9_.-]+)\Z"
)
_CONFIG: Final = re.compile(r"([0-9a-f]{16})_([A-Za-z0-9_-]+)(?:\.r([1-9]\d{0,8}))?\.yaml\Z")
_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")


def is_exp_hash(text: str) -> bool:
    """Tell whether `text` is a full experiment hash: 16 lower-case hex digits."""
    return _EXP_HASH.match(text) is not None


def check_label(text: object, *, what: str) -> str:
    """Return `text` if it can be part of a file name on every platform.

    Raises: ValueError naming what is wrong with it.
    """
    if not isinstance(text, str) or _LABEL.match(text) is None:
        raise ValueError(
            f"{what} {text!r} cannot be part of a file name; use 1 to 64 letters, digits, '_' or '-'"
        )
    return text


def experiment_folder(exp_hash: str) -> str:
    """Return the prefix of everything that belongs to the experiment."""
    return f"{CHECKPOINTS}{exp_hash}/"


def experiment_key(exp_hash: str) -> str:
    """Return the key of the experiment record."""
    return f"{experiment_folder(exp_hash)}experiment.json"


def model_folder(exp_hash: str) -> str:
    """Return the prefix of checkpoints and architecture."""
    return f"{experiment_folder(exp_hash)}model/"


def config_folder(exp_hash: str) -> str:
    """Return the prefix of the config files."""
    return f"{experiment_folder(exp_hash)}hp/"


def data_folder(exp_hash: str) -> str:
    """Return the prefix of samples and backups."""
    return f"{experiment_folder(exp_hash)}data/"


def notes_folder(exp_hash: str) -> str:
    """Return the prefix of names, notes, tags and pins."""
    return f"{experiment_folder(exp_hash)}notes/"


def provenance_folder(exp_hash: str) -> str:
    """Return the prefix of the sessions that opened the experiment."""
    return f"{experiment_folder(exp_hash)}provenance/"


def architecture_key(exp_hash: str, suffix: str = "json") -> str:
    """Return the key of the architecture description (`json`) or its picture (`txt`)."""
    return f"{model_folder(exp_hash)}{exp_hash}_architecture.{suffix}"


def config_key(exp_hash: str, *, name: str = "config", revision: int = 1) -> str:
    """Return the key of a config file."""
    suffix = "" if revision == 1 else f".r{revision}"
    return f"{config_folder(exp_hash)}{exp_hash}_{name}{suffix}.yaml"


def parse_config_name(exp_hash: str, name: str) -> tuple[str, int] | None:
    """Return (config name, revision) of a file name in `hp/`, None for other files."""
    found = _CONFIG.match(name)
    if found is None or found.group(1) != exp_hash:
        return None
    return found.group(2), int(found.group(3) or 1)


def data_key(exp_hash: str, name: str = "samples", *, revision: int = 1) -> str:
    """Return the key of the samples file or of a backup."""
    suffix = "" if revision == 1 else f".r{revision}"
    return f"{data_folder(exp_hash)}{exp_hash}_{name}{suffix}.h5"


def samples_base_key(exp_hash: str) -> str:
    """Return the key of the file that a samples file which is a delta refers to."""
    return f"{data_folder(exp_hash)}{exp_hash}_samples.base.h5"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointName:
    """The part of a file name that tells which commit it belongs to."""

    exp_hash: str
    step: int
    revision: int = 1

    @property
    def stem(self) -> str:
        """`{exp_hash}_step_000100`, with `.r2` for the second revision."""
        suffix = "" if self.revision == 1 else f".r{self.revision}"
        return f"{self.exp_hash}_step_{self.step:06d}{suffix}"

    @property
    def manifest_key(self) -> str:
        """Key whose appearance is the commit."""
        return f"{model_folder(self.exp_hash)}{self.stem}.json"

    @property
    def pending_key(self) -> str:
        """Key that a writer of this revision holds."""
        return f"{model_folder(self.exp_hash)}{self.stem}.pending"

    def file_name(self, part: str, *, is_partial: bool = False) -> str:
        """Return the file name of a part: `model`, `model.{name}`, `training`, `stable`, `ref1`...

        Args:
            part: what the file holds.
            is_partial: some tensors of the part lie in reused files, and only the others in this one.
        """
        words = [] if part == "model" else [part]
        return ".".join([self.stem, *words, *["partial"] * is_partial, "safetensors"])

    def file_key(self, file_name: str) -> str:
        """Return the key of a file of this checkpoint.

        Raises: FormatError for a name that is not one of this revision (a hostile manifest).
        """
        found = parse_checkpoint_file(file_name)
        if found is None or found[0] != self or not found[1].endswith("safetensors"):
            raise FormatError(f"{file_name!r} is not a file of checkpoint {self.stem}")
        return model_folder(self.exp_hash) + file_name


def parse_checkpoint_file(name: str) -> tuple[CheckpointName, str] | None:
    """Return the checkpoint that a file name belongs to and the rest of the name; None for others."""
    found = _CHECKPOINT.match(name)
    if found is None:
        return None
    exp_hash, step, revision, rest = found.groups()
    owner = CheckpointName(exp_hash=exp_hash, step=int(step), revision=int(revision or 1))
    return (owner, rest) if f"{owner.stem}.{rest}" == name else None
