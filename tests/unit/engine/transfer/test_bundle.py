"""A bundle holds what was chosen with its lineage, and arrives byte for byte."""

import tarfile
from dataclasses import replace

import pytest
from support.collected import save
from support.roots import begin, draft_of, hash_of, small_root
from support.transfers import family, files_of, statuses

from weightslab.engine.errors import AlreadyExistsError, ExperimentNotFoundError
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint

C = hash_of(2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root that no test changes, and a bundle of experiment B."""
    path = tmp_path_factory.mktemp("bundle")
    root, a, b = family(path / "root")
    report = root.bundle(path / "b.wlb", b)
    return root, a, b, report


def test_an_experiment_goes_with_the_checkpoints_that_led_to_it(made):
    _, a, b, report = made
    assert report.is_complete
    assert report.experiments == (a, b)
    assert [name[17:] for name in report.checkpoints] == [
        "step_000001", "step_000002", "step_000001", "step_000002",
    ]  # fmt: skip
    assert report.gaps == ()
    assert report.size_bytes == report.path.stat().st_size


def test_what_arrives_is_equal_byte_for_byte_and_verifies_and_has_its_history(made, tmp_path):
    root, a, b, report = made
    other = small_root(tmp_path / "other")

    told = other.unbundle(report.path)

    assert told.is_complete, str(told)
    assert statuses(told) == (["created"], ["copied"])
    assert files_of(other, b) == files_of(root, b)
    theirs, ours = files_of(root, a), files_of(other, a)
    left = {key for key in theirs if key not in ours}
    assert {k for k in left if "step_000003" not in k} == {k for k in left if "_note_" in k}
    assert all(theirs[key] == data for key, data in ours.items())
    assert other.verify() == []
    assert other.history(f"{b}@2").to_dict() == root.history(f"{b}@2").to_dict()
    assert other.notes.read(a).name == "the first\x1b[2J"
    assert [n.text for n in other.notes.read(a).tags] == ["paper"]  # about a step that came
    assert other.notes.read(a).notes == ()  # about one that did not
    assert [pin.step for pin in other.notes.read(b).pins] == [2]


def test_a_second_time_adds_nothing_and_the_rest_comes_with_another_bundle(made, tmp_path):
    root, _, _, report = made
    other = small_root(tmp_path / "other")
    other.unbundle(report.path)
    before = files_of(other)
    stats = {p: p.stat().st_mtime_ns for p in (other.path / "checkpoints").rglob("*")}

    assert statuses(other.unbundle(report.path)) == (["known"], ["known"])
    assert files_of(other) == before
    assert {p: p.stat().st_mtime_ns for p in (other.path / "checkpoints").rglob("*")} == stats

    root.bundle(tmp_path / "all.wlb")
    told = other.unbundle(tmp_path / "all.wlb")
    assert [c.status for c in told.checkpoints].count("copied") == 2
    assert files_of(other) == files_of(root)


def test_the_same_choice_gives_the_same_bytes(made, tmp_path):
    _, _, b, report = made
    other = small_root(tmp_path / "other")
    other.unbundle(report.path)
    again = other.bundle(tmp_path / "again.wlb", b)
    assert again.path.read_bytes() == report.path.read_bytes()


@pytest.mark.parametrize(
    ("lineage", "experiments", "steps"),
    [("full", "AB", [1, 2, 2]), ("records", "AB", [2]), ("none", "B", [2])],
)
def test_one_checkpoint_goes_with_as_much_lineage_as_is_asked_for(
    made, tmp_path, lineage, experiments, steps
):
    root, a, b, _ = made
    # step 2 of B came from step 1 of B, which came from step 2 of A
    wanted = steps if lineage != "full" else [1, 2, 1, 2]
    report = root.bundle(tmp_path / "one.wlb", f"{b}@2", lineage=lineage)
    assert report.experiments == tuple({"A": a, "B": b}[c] for c in experiments)
    assert [int(name[-6:]) for name in report.checkpoints] == wanted
    other = small_root(tmp_path / "other")
    assert other.unbundle(report.path).is_complete
    assert other.verify() == []
    assert {*other.list_hashes()} == {*report.experiments}
    if lineage == "records":
        assert len(other.samples(a)) == 12


def test_what_was_deleted_of_the_lineage_is_told(tmp_path):
    root, a, b = family(tmp_path / "root")
    root.delete(a, step=2)
    report = root.bundle(tmp_path / "b.wlb", b)
    assert report.gaps == (f"the record of {a}@2 is gone",)
    assert report.experiments == (a, b)  # its record is there, and who it was can be asked
    assert report.is_complete
    told = small_root(tmp_path / "other").unbundle(report.path)
    assert told.gaps == report.gaps
    assert f"not in the source: the record of {a}@2 is gone" in str(told)


def test_damaged_checkpoints_are_left_out_and_named_and_hide_no_other(tmp_path):
    root, a, _ = family(tmp_path / "root")
    (file,) = root.path.rglob(f"{a}_step_000002.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (note,) = root.path.rglob("*_tag_*.json")
    note.write_bytes(b"{")
    (root.path / "checkpoints" / C / "experiment.json").write_bytes(b"{")

    report = root.bundle(tmp_path / "all.wlb")

    assert not report.is_complete
    assert [name for name, _ in report.left_out] == [
        note.name, f"{a}_step_000002", f"experiment {C}",
    ]  # fmt: skip
    assert "is damaged: its bytes do not have the recorded digest" in report.left_out[1][1]
    other = small_root(tmp_path / "other")
    assert other.unbundle(report.path).is_complete
    assert [e.name.step for e in other.checkpoints(a)] == [1, 3]
    assert other.verify() == []


def test_files_that_share_their_bytes_are_in_it_once_and_share_them_where_they_arrive(tmp_path):
    root = small_root(tmp_path / "root")
    h, _ = begin(root, 0)
    for step in (1, 2, 3):
        save(root, h, step, text="same", size_bytes=1_200_000, metrics={"loss": step})
    report = root.bundle(tmp_path / "b.wlb")
    assert report.size_bytes < 1.1 * 3 * 1_200_000
    with tarfile.open(report.path) as archive:
        assert sum(member.islnk() for member in archive) == 4
    other = small_root(tmp_path / "other")
    told = other.unbundle(report.path)
    assert told.written_bytes * 2 == told.linked_bytes
    inodes = {p.stat().st_ino for p in other.path.rglob("*_step_*.training.safetensors")}
    assert len(inodes) == 1
    assert other.verify() == []


def test_a_bundle_that_tar_takes_apart_is_a_root(made, tmp_path):
    root, _, b, report = made
    with tarfile.open(report.path) as archive:
        archive.extractall(tmp_path / "root", filter="data")
    found = CheckpointRoot(tmp_path / "root", read_only=True)
    assert found.verify() == []
    assert files_of(found, b) == files_of(root, b)


def test_nothing_is_replaced_and_nothing_is_left_behind(made, tmp_path):
    root, _, b, _ = made
    path = tmp_path / "mine.wlb"
    path.write_bytes(b"mine")
    with pytest.raises(AlreadyExistsError, match="nothing is replaced"):
        root.bundle(path, b)
    with pytest.raises(ExperimentNotFoundError):
        root.bundle(tmp_path / "x.wlb", "ffff")
    with pytest.raises(ValueError, match="lineage is one of full, records, none"):
        root.bundle(tmp_path / "x.wlb", b, lineage="all")
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.wlb"]


def test_a_dry_run_says_what_would_come_and_writes_nothing(made, tmp_path):
    _, _, _, report = made
    other = CheckpointRoot(tmp_path / "other", read_only=True, must_exist=False)
    told = other.unbundle(report.path, dry_run=True)
    assert statuses(told) == (["would create"], ["would copy"])
    assert told.is_complete
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_with_everything(made, tmp_path):
    root, _, b, report = made
    seen, came = [], []
    root.bundle(tmp_path / "b.wlb", b, progress=lambda *told: seen.append(told))
    small_root(tmp_path / "o").unbundle(report.path, progress=lambda *told: came.append(told))
    for told in (seen, came):
        assert told[-1][0] == told[-1][1]
        assert all(0 <= done <= total for done, total in told)


def test_names_beyond_a_hundred_characters_go_through(tmp_path):
    root = small_root(tmp_path / "root")
    h, _ = begin(root, 0)
    long = "model." + 64 * "n"
    draft = draft_of(h, 1, {long: b"weights", "model.b": b"weights" * 20_000})
    write_checkpoint(root, replace(draft, state={long: {}, "model.b": {}}))
    write_checkpoint(root, replace(draft, step=2, state={long: {}, "model.b": {}}, metadata=1))
    report = root.bundle(tmp_path / "b.wlb")
    other = small_root(tmp_path / "other")
    assert other.unbundle(report.path).is_complete
    assert files_of(other) == files_of(root)
