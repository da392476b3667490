"""The verb: a checkpoint of a root in one of the forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from weightslab.engine.errors import MissingExtraError, ObjectNotFoundError
from weightslab.engine.repository.claim import reading

if TYPE_CHECKING:
    import os

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.storage.store import Store

    class Holder(Protocol):
        """A root: where it lives, and what it says about an experiment."""

        @property
        def store(self) -> Store: ...
        def get_checkpoint(
            self, exp_hash: str, step: int, *, revision: int | None = None
        ) -> CheckpointEntry: ...
        def architecture(self, exp_hash: str) -> dict[str, Any]: ...
        def config(self, exp_hash: str, *, step: int | None = None) -> dict[str, Any]: ...


__all__ = ["FORMATS", "export"]

FORMATS: Final = ("safetensors", "torch", "huggingface")


def export(
    root: Holder,
    exp_hash: str,
    step: int,
    path: str | os.PathLike[str],
    *,
    part: str = "model",
    revision: int | None = None,
    format: str = "safetensors",  # noqa: A002 - the word people know
) -> Path:
    """Write a checkpoint, verified, in a form that others read; it stands alone.

    What is written appears whole, or not at all, and replaces nothing.

    Args:
        exp_hash: hash or prefix.
        step: the step.
        path: the file or folder to make.
        part: `model`, `model.{name}` where a dict of models was saved, or `training`; with `torch` also
            `all`: one dictionary with `model_state_dict`, `optimizer_state_dict`, `step` and more.
        revision: which revision of the step; by default the highest.
        format: `safetensors`: one file. `torch`: one file of `torch.save`, which
            `torch.load(weights_only=True)` reads; needs torch. `huggingface`: a folder with
            `model.safetensors`, in shards of 5 GB, and `config.json`, which `from_pretrained` reads where
            the model is one of Transformers; needs that package then.
    Returns: its absolute path.
    Raises: CheckpointNotFoundError, ObjectNotFoundError (no such part), AlreadyExistsError,
        IntegrityError, MissingExtraError, StorageError.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {format!r:.40}")
    target = Path(path).absolute()
    found = root.get_checkpoint(exp_hash, step, revision=revision)
    with reading(root.store, found.name) as manifest:
        if format == "torch":
            try:
                from weightslab.engine.export.torch_file import write_torch
            except ImportError as error:
                raise MissingExtraError(".pt needs torch", hint="pip install torch") from error
            write_torch(root.store, manifest, target, part=part)
        elif format == "huggingface":
            from weightslab.engine.export.hf_folder import write_hf_folder

            write_hf_folder(
                root.store,
                manifest,
                target,
                part=part,
                architecture=_architecture(root, found),
                config=_config(root, found),
            )
        else:
            from weightslab.engine.export.safetensors_file import write_safetensors

            write_safetensors(root.store, manifest, target, part=part)
    return target


def _architecture(root: Holder, found: CheckpointEntry) -> dict[str, Any] | None:
    try:
        return root.architecture(found.name.exp_hash)
    except ObjectNotFoundError:
        return None  # none was given


def _config(root: Holder, found: CheckpointEntry) -> dict[str, Any] | None:
    try:
        return root.config(found.name.exp_hash, step=found.name.step)
    except ObjectNotFoundError:
        return None  # none was given
