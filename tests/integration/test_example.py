"""The example tells the truth, twice."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from weightslab.engine.root import CheckpointRoot
from weightslab.examples import checkpoint_v2_example as example

SCRIPT = Path(example.__file__)


def run(root, *, columns):
    """Run the script by its path, as a newcomer does; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), "--root", root.name],
        cwd=root.parent,
        env={**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^Done in \d+ s\.$", done.stdout, flags=re.MULTILINE)
    return done.stdout


def files(root):
    """Path -> digest of everything in the root but the logs."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] != "logs"
    }


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Root, and (output, files) of the first and of the second run."""
    root = tmp_path_factory.mktemp("example") / "root"
    first = run(root, columns=80), files(root)
    second = run(root, columns=100), files(root)
    return root, first, second


def accuracy(row, output):
    """The percentage at the end of the table row with this title."""
    (found,) = re.findall(rf"^{re.escape(row)} .*?([\d.]+) %$", output, flags=re.MULTILINE)
    return float(found)


@pytest.mark.slow
def test_all_seven_scenes_are_played_in_order(played):
    for output in (played[1][0], played[2][0]):
        titles = re.findall(r"^([1-7])  (.+?) \u2500", output, flags=re.MULTILINE)
        assert titles == [
            ("1", "Basic use"),
            ("2", "A training loop"),
            ("3", "An architecture change"),
            ("4", "A config change"),
            ("5", "Discarding mislabelled samples"),
            ("6", "Loading"),
            ("7", "All experiments"),
        ]


@pytest.mark.slow
def test_it_tells_of_real_data_and_what_changed(played):
    output = played[1][0]
    for sentence in (
        "1,797 handwritten digits from scikit-learn: 1,078 to train on, 719 to test with.",
        "Resumed at step 50, optimizer included; 100 left to train.",
        "  * fc1: Linear(256 -> 32) became Linear(256 -> 64)",
        "  * module norm: BatchNorm2d(num_features=16) added",
        "  * optimizer.lr: 0.003 -> 0.002",
        "  * 60 samples discarded",
        "root.verify() read every byte again and found 0 damaged files.",
    ):
        assert sentence in output


@pytest.mark.slow
def test_discarding_finds_the_flipped_labels_and_helps(played):
    output = played[1][0]
    (counts,) = re.findall(
        r"^Found (\d+) of (\d+) flipped labels among (\d+) discarded samples$",
        output,
        flags=re.MULTILINE,
    )
    found, flipped, discarded = map(int, counts)
    assert (flipped, discarded) == (54, 60)
    assert found >= 45  # other seeds find 49 to 54
    assert accuracy("after discarding", output) > accuracy("before", output) > 90
    assert accuracy("after discarding", output) > accuracy("after, all samples kept", output)


@pytest.mark.slow
def test_what_is_loaded_measures_as_it_was_saved(played):
    output = played[1][0]
    for row in ("the latest", "step 150, by a short hash"):
        (shares,) = re.findall(rf"^{row} .*?([\d.]+) %\s+([\d.]+) %$", output, flags=re.MULTILINE)
        assert shares[0] == shares[1]


@pytest.mark.slow
def test_the_tree_is_one_line_of_descent(played):
    tree = played[1][0].partition("Who came from whom")[2]
    origins = re.findall(
        r"\u2500\u2500 [0-9a-f]{8}(?: from step (\d+))?$", tree, flags=re.MULTILINE
    )
    assert origins == ["", "150", "300", "400"]


@pytest.mark.slow
def test_the_second_run_changes_no_byte_of_the_first(played):
    (_, before), (_, after) = played[1], played[2]
    assert before == after
    assert len([name for name in before if name.endswith(".training.safetensors")]) == 16


@pytest.mark.slow
def test_the_second_run_says_that_it_knows_everything_already(played):
    _, (first, _), (second, _) = played
    assert "added 4 of the 4 experiments and 16 of the 16 checkpoints in root." in " ".join(
        first.split()
    )
    assert "added 0 of the 4 experiments and 0 of the 16 checkpoints in root." in " ".join(
        second.split()
    )
    assert "known already and nothing is written twice" in " ".join(second.split())
    assert second.count("known already,") == 3
    assert "optimizer included; nothing left to train" in second


@pytest.mark.slow
def test_both_runs_end_at_the_same_accuracies(played):
    first, second = (re.findall(r"[\d.]+ %", run[0].partition("\n3  ")[2]) for run in played[1:])
    assert first == second
    assert len(first) >= 15


@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal(played):
    _, (first, _), (second, _) = played
    assert max(map(len, first.splitlines())) <= 80
    assert max(map(len, second.splitlines())) <= 100


@pytest.mark.slow
def test_the_root_is_sound_and_every_change_has_its_parent(played):
    root = CheckpointRoot(played[0], read_only=True)
    assert root.verify() == []
    hashes = root.list_hashes()
    parents = [root.checkpoints(name)[0].parent for name in hashes]
    assert [(p.kind, p.exp_hash, p.step, p.exact) for p in parents] == [
        ("fresh", None, None, True),
        ("checkpoint", hashes[0], 150, True),
        ("checkpoint", hashes[1], 300, True),
        ("checkpoint", hashes[2], 400, True),
    ]


@pytest.mark.parametrize(
    ("module", "name"), [("rich.console", "rich"), ("sklearn.datasets", "scikit-learn")]
)
def test_a_missing_extra_is_one_line_with_the_command(monkeypatch, capsys, tmp_path, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    assert example.main(["--root", str(tmp_path / "root")]) == 40
    captured = capsys.readouterr()
    assert captured.err == f"the example needs {name}; pip install 'weightslab[example]'\n"
    assert not (tmp_path / "root").exists()
