"""Progress: plain numbers that come back, or an error."""

from __future__ import annotations

import numpy as np
import pytest

from weightslab.engine.errors import FormatError
from weightslab.engine.training.progress import Progress, check_count


def test_progress_comes_back():
    progress = Progress(step=7, epoch=2, samples_seen=640, world_size=4)
    assert Progress.from_tree(progress.to_tree(), step=7) == progress
    assert progress.is_told
    assert not Progress(step=7).is_told


def test_checkpoint_without_it_knows_the_step_alone():
    assert Progress.from_tree(None, step=3) == Progress(step=3)


@pytest.mark.parametrize("tree", [3, [], {"epoch": -1}, {"epoch": "2"}, {"samples_seen": True}])
def test_what_is_no_progress_is_refused(tree):
    with pytest.raises(FormatError, match="is no progress"):
        Progress.from_tree(tree, step=1)


def test_counts_are_whole_numbers_from_0():
    assert check_count(None, what="epoch") is None
    assert check_count(np.int64(3), what="epoch") == 3
    for value in (True, 1.5, "3"):
        with pytest.raises(TypeError, match="epoch is an int >= 0, not"):
            check_count(value, what="epoch")
    with pytest.raises(ValueError, match="samples_seen is an int >= 0, not -1"):
        check_count(-1, what="samples_seen")
