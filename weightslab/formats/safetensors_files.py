"""Single `.safetensors` files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from weightslab.formats.source import Source, SourceCheckpoint, SourceExperiment, SourceState

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from weightslab.formats.held import HeldFile
    from weightslab.formats.source import Reader

__all__ = ["FORMAT", "SafetensorsFiles", "load_safetensors"]

_STEP_IN_NAME: Final = re.compile(r"step[-_=]?(\d{1,18})", re.IGNORECASE)


class SafetensorsFiles:
    """One file, one experiment."""

    name = "safetensors"

    def recognises(self, path: Path) -> bool:
        """Tell by the ending."""
        return path.suffix == ".safetensors" and path.is_file()

    def open(self, path: Path) -> Source:
        """Say what is there."""
        step = _STEP_IN_NAME.search(path.stem)
        return Source(
            format=self.name,
            path=path,
            experiments=[SourceExperiment(key=path.name, name=path.stem)],
            checkpoints=[
                SourceCheckpoint(
                    key=path.name,
                    experiment=path.name,
                    files=(path,),
                    load=lambda reader: _load(reader, path),
                    step=int(step[1]) if step else None,
                )
            ],
        )


def _load(reader: Reader, path: Path) -> SourceState:
    tensors, metadata = load_safetensors(reader.hold(path))
    return SourceState(models={"": tensors}, metadata=metadata)


def load_safetensors(held: HeldFile) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors, which look at the held bytes, and the metadata of the header.

    Names that the metadata gives as tied (`dropped -> kept`, as `safetensors.torch.save_model`
    writes them) are tensors, too, and no metadata.

    Raises: FormatError, TruncatedError, InvalidManifestError.
    """
    from weightslab.engine.tensors.header import read_header
    from weightslab.engine.tensors.image import tensor_view

    header = read_header(held.view, what=held.path.name)
    tensors = {name: tensor_view(held.view, entry) for name, entry in header.entries.items()}
    tied = {k: v for k, v in header.metadata.items() if v in tensors and k not in tensors}
    tensors |= {dropped: tensors[kept] for dropped, kept in tied.items()}
    metadata = {k: v for k, v in header.metadata.items() if k not in tied and k != "format"}
    return tensors, metadata


FORMAT: Final = SafetensorsFiles()
