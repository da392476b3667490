"""The plumbing of the example: real digits, two small CNNs, a training loop. No checkpoints here.

The data are the 1,797 images of handwritten digits that scikit-learn brings along: 8 x 8 pixels,
grey, labelled 0 to 9. Some labels of the training part are made wrong on purpose.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from weightslab.engine.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "Digits",
    "DigitsCNN",
    "Samples",
    "WideDigitsCNN",
    "accuracy",
    "carry_over",
    "load_data",
    "make_deterministic",
    "new_model",
    "sample_losses",
    "train_steps",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Labelled images; `uids[i]` is the name of image `i` for ever, whatever is discarded.

    Attributes:
        uids: n names such as `digit-0042`.
        images: float32 [n, 1, 8, 8], 0.0 (white) to 1.0 (black).
        labels: int64 [n], 0 to 9, as the model gets them.
    """

    uids: tuple[str, ...]
    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.uids)

    def without(self, discarded: Collection[str]) -> Samples:
        """Return the samples that are not named in `discarded`, in the same order."""
        keep = [i for i, uid in enumerate(self.uids) if uid not in discarded]
        uids = tuple(self.uids[i] for i in keep)
        return Samples(uids=uids, images=self.images[keep], labels=self.labels[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Training and test part.

    Attributes:
        train: samples to train on, some of them labelled wrongly.
        test: samples to measure with, all labelled correctly.
        flipped: UIDs of the wrong labels; only used to tell how many were found.
    """

    train: Samples
    test: Samples
    flipped: frozenset[str]


class DigitsCNN(nn.Module):
    """Two convolutions and a small head: images float32 [n, 1, 8, 8] to logits float32 [n, 10]."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(16 * 4 * 4, hidden)
        self.fc2 = nn.Linear(hidden, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = functional.relu(self.conv1(images))
        x = functional.relu(self.conv2(x))
        x = functional.max_pool2d(x, 2).flatten(1)
        return self.fc2(functional.relu(self.fc1(x)))  # type: ignore[no-any-return]


class WideDigitsCNN(DigitsCNN):
    """A `DigitsCNN` with twice the hidden units and batch normalisation."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__(hidden)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = functional.relu(self.conv1(images))
        x = functional.relu(self.norm(self.conv2(x)))
        x = functional.max_pool2d(x, 2).flatten(1)
        return self.fc2(functional.relu(self.fc1(x)))  # type: ignore[no-any-return]


def make_deterministic() -> None:
    """Let a second run compute the same bits: one thread, deterministic kernels."""
    torch.set_num_threads(1)  # sums depend on how they are split; for 8 x 8 pixels one is fastest
    torch.use_deterministic_algorithms(mode=True)


def load_data(config: dict[str, Any]) -> Digits:
    """Return the digits, split and with flipped labels, always the same for the same config.

    Raises: MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "the example needs scikit-learn", hint="pip install 'weightslab[example]'"
        ) from error
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16  # 16 grey levels
    labels = torch.tensor(raw.target, dtype=torch.int64)
    chance = torch.Generator().manual_seed(config["seed"])
    order = torch.randperm(len(labels), generator=chance)
    num_train = len(labels) - round(config["data"]["test_share"] * len(labels))
    flips = order[: round(config["data"]["flipped_share"] * num_train)]
    shift = torch.randint(1, 10, (len(flips),), generator=chance)  # never back to the true label
    labels[flips] = (labels[flips] + shift) % 10
    uids = [f"digit-{i:04d}" for i in range(len(labels))]

    def part(chosen: torch.Tensor) -> Samples:
        rows = sorted(chosen.tolist())
        names = tuple(uids[i] for i in rows)
        return Samples(uids=names, images=images[rows], labels=labels[rows])

    return Digits(
        train=part(order[:num_train]),
        test=part(order[num_train:]),
        flipped=frozenset(uids[i] for i in flips.tolist()),
    )


def new_model(
    kind: type[DigitsCNN], config: dict[str, Any]
) -> tuple[DigitsCNN, torch.optim.Optimizer]:
    """Return an untrained model of this class, and its optimizer.

    All global random generators begin anew: their state is part of every checkpoint, and a second run
    of this example shall find its checkpoints as they are.
    """
    random.seed(config["seed"])
    np.random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    model = kind()
    return model, torch.optim.Adam(model.parameters(), lr=config["optimizer"]["lr"])


def train_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    config: dict[str, Any],
    *,
    start: int,
    stop: int,
) -> Iterator[tuple[int, float]]:
    """Train from step `start` (done already) to `stop`; yield (step, loss) after each step.

    Which samples a step sees depends on its number alone, so a run that was interrupted goes on
    with the very batches it would have seen.
    """
    size = config["batch_size"]
    num_batches = len(samples) // size
    for step in range(start, stop):
        epoch, batch = divmod(step, num_batches)
        chance = torch.Generator().manual_seed(config["seed"] * 1_000_003 + epoch)
        order = torch.randperm(len(samples), generator=chance)
        rows = order[batch * size : (batch + 1) * size]
        model.train()
        loss = functional.cross_entropy(model(samples.images[rows]), samples.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield step + 1, loss.item()


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """Return the share of samples whose label the model names, 0.0 to 1.0."""
    model.eval()
    right = (model(samples.images).argmax(1) == samples.labels).sum()
    return int(right) / len(samples)


@torch.no_grad()
def sample_losses(model: nn.Module, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross entropy of every sample, float32 [n], and the guesses, int64 [n]."""
    model.eval()
    logits = model(samples.images)
    return functional.cross_entropy(logits, samples.labels, reduction="none"), logits.argmax(1)


def carry_over(old: nn.Module, new: nn.Module) -> list[str]:
    """Copy every entry of the state that has the same name and shape in both; return the names."""
    wanted = new.state_dict()
    fitting = {
        name: value
        for name, value in old.state_dict().items()
        if name in wanted and wanted[name].shape == value.shape
    }
    new.load_state_dict(fitting, strict=False)
    return list(fitting)
