"""What an experiment is: canonical descriptions and digests of model, config and data; no I/O.

`architecture` needs torch when it is used; nothing here imports torch or h5py by itself.
"""

from __future__ import annotations

from weightslab.engine.identity.canonical import (
    SCHEME,
    combine,
    component_digest,
    encode_canonical,
    exp_hash_of,
)
from weightslab.engine.identity.config import ConfigDescription, describe_config
from weightslab.engine.identity.samples import SampleSet

__all__ = [
    "SCHEME",
    "ConfigDescription",
    "SampleSet",
    "combine",
    "component_digest",
    "describe_config",
    "encode_canonical",
    "exp_hash_of",
]
