"""Checkpoints for PyTorch that know exactly what produced them.

`from weightslab.components import CheckpointManagerV2` is the way in; the user's guide is
`weightslab/CHECKPOINT_V2_GUIDE.md`.
"""

__version__ = "0.1.0"
