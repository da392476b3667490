"""`bundle`, `unbundle`, `copy` and `import`: what came is told, and what did not ends with 1."""

import json

import pytest
from support.command_line import FIRST, THIRD

from weightslab.engine.root import CheckpointRoot


def steps(path):
    return [e.name.step for e in CheckpointRoot(path, read_only=True).checkpoints(FIRST)]


def test_an_experiment_goes_into_a_file_and_into_a_new_root(cli, root, tmp_path):
    file, other = tmp_path / "run.wlb", tmp_path / "other"
    done = cli("bundle", file, FIRST[:4], "--root", root)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(": 1 experiment, 3 checkpoints\n")
    assert cli("bundle", file, FIRST, "--root", root).code == 11

    told = cli("unbundle", file, "--root", other, "--dry-run")
    assert (told.code, told.err, other.exists()) == (0, "nothing was changed\n", False)
    assert told.out == f"{file} -> {other}: 3 would copy\n"
    done = cli("unbundle", file, "--root", other)
    assert (done.code, done.out) == (0, f"{file} -> {other}: 3 copied\n")
    assert steps(other) == [1, 2, 3]
    found = json.loads(cli("unbundle", file, "--root", other, "--json").out)
    assert {c["status"] for c in found["checkpoints"]} == {"known"}
    assert cli("verify", "--root", other).code == 0


def test_damaged_bundles_and_other_files_are_refused(cli, root, tmp_path):
    file = tmp_path / "run.wlb"
    cli("bundle", file, FIRST, "--root", root)
    file.write_bytes(file.read_bytes()[:-700])
    assert cli("unbundle", file, "--root", tmp_path / "other").code in (20, 21)
    done = cli("unbundle", root / "logs" / "events.jsonl", "--root", tmp_path / "other")
    assert (done.code, "this is no bundle" in done.err) == (21, True)
    assert cli("unbundle", tmp_path / "none", "--root", tmp_path / "other").code == 10
    assert cli("unbundle", file, "--root", tmp_path).code == 10  # a folder of another kind


def test_what_is_left_out_is_named_and_ends_with_1(cli, root, tmp_path):
    done = cli("bundle", tmp_path / "all.wlb", "--root", root)
    assert (done.code, f"left out: experiment {THIRD}" in done.err) == (1, True)
    done = cli("copy", tmp_path / "other", "--root", root)
    assert (done.code, f"failed: {THIRD}" in done.out) == (1, True)
    assert steps(tmp_path / "other") == [1, 2, 3]


def test_a_checkpoint_is_copied_alone_or_with_all(cli, root, tmp_path):
    other = tmp_path / "other"
    words = ("copy", other, f"{FIRST}@2", "--root", root)
    assert cli(*words, "--lineage", "some").code == 2
    done = cli(*words, "--lineage", "none", "--no-links")
    assert (done.code, done.out) == (0, f"{root} -> {other}: 1 copied\n")
    assert done.err.endswith("written, 0 B linked\n")
    found = json.loads(cli("copy", other, FIRST, "--json", "--root", root).out)
    assert [c["status"] for c in found["checkpoints"]] == ["copied", "known", "copied"]
    assert cli("copy", root, FIRST, "--root", root).code == 2


@pytest.mark.slow
def test_files_of_others_are_imported_once(cli, root, tmp_path):
    source, other = root.with_name("root.safetensors"), tmp_path / "other"
    assert cli("import", source, "--root", other, "--dry-run").code == 0
    assert not other.exists()
    assert "1 imported" in cli("import", source, "--root", other).out
    assert "1 known" in cli("import", source, "--root", other).out
    source.write_bytes(b"broken")
    done = cli("import", source, "--root", other)
    assert (done.code, "failed: root.safetensors" in done.out) == (1, True)
    assert cli("import", tmp_path / "none", "--root", other).code == 10
    assert cli("import", source, "--format", "no", "--root", other).code == 2
