"""References: how people name a checkpoint in one word, alike in Python and on the command line.

    3f2a             an experiment, by hash or the beginning of it; of its checkpoints the newest
    3f2a@100         its checkpoint of step 100, the highest revision
    3f2a@100.r2      that revision
    3f2a@latest      the newest, by order of commit
    3f2a@best:loss   the one with the lowest loss; `3f2a@best:accuracy:max` the highest accuracy
    latest           the newest of the root; `best:loss` the best of the root

Pure; looking it up is `CheckpointRoot.at`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Reference", "parse_reference"]

_STEP: Final = re.compile(r"(\d{1,18})(?:\.r(\d{1,9}))?")
_BEST: Final = re.compile(r"best:(.+?)(?::(min|max))?", re.DOTALL)
_FORMS: Final = "HASH, HASH@STEP, HASH@STEP.rN, HASH@latest, HASH@best:METRIC[:max]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a reference says.

    Attributes:
        exp_hash: hash or prefix; None for the whole root.
        step: the step; None for the newest, or the best.
        revision: of the step; None for the highest.
        metric: whose best value is meant; None for the newest.
        mode: `min` or `max`.
        is_experiment: True where no checkpoint was named, so that the experiment is meant.
    """

    exp_hash: str | None
    step: int | None = None
    revision: int | None = None
    metric: str | None = None
    mode: str = "min"
    is_experiment: bool = False


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises: TypeError; ValueError that names the forms there are.
    """
    if not isinstance(text, str):
        raise TypeError(f"a reference is a str such as '3f2a@100', not {type(text).__name__}")
    head, at, tail = text.strip().partition("@")
    if not at and (head == "latest" or head.startswith("best:")):
        head, tail = "", head
    elif not at and head:
        return Reference(exp_hash=head, is_experiment=True)
    elif not head:
        raise ValueError(f"{text!r:.80} names no experiment; the forms are {_FORMS}")
    exp_hash = head or None
    if tail == "latest":
        return Reference(exp_hash=exp_hash)
    if found := _STEP.fullmatch(tail):
        step, revision = found.groups()
        return Reference(
            exp_hash=exp_hash, step=int(step), revision=None if revision is None else int(revision)
        )
    if found := _BEST.fullmatch(tail):
        return Reference(exp_hash=exp_hash, metric=found[1], mode=found[2] or "min")
    raise ValueError(f"{tail!r:.80} is no checkpoint of {head!r:.80}; the forms are {_FORMS}")
