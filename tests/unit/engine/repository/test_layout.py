"""Names: keys from facts, facts from names."""

import pytest

from weightslab.engine.errors import FormatError
from weightslab.engine.repository import layout
from weightslab.engine.repository.layout import CheckpointName, parse_checkpoint_file

HASH = "0123456789abcdef"


def test_first_revision_is_not_written_into_the_name():
    assert CheckpointName(exp_hash=HASH, step=100).stem == "0123456789abcdef_step_000100"


def test_later_revisions_are_written_into_the_name():
    name = CheckpointName(exp_hash=HASH, step=100, revision=2)
    assert name.file_name("training") == "0123456789abcdef_step_000100.r2.training.safetensors"
    assert name.file_name("model.gen") == "0123456789abcdef_step_000100.r2.model.gen.safetensors"


def test_steps_above_a_million_are_read_as_integers():
    found = parse_checkpoint_file(f"{HASH}_step_1000000.json")
    assert found == (CheckpointName(exp_hash=HASH, step=1000000), "json")


@pytest.mark.parametrize(
    "name",
    [
        f"{HASH}_step_100.json",  # fewer than six digits
        f"{HASH}_step_0001000.json",  # not the way we write 1000
        f"{HASH}_step_000100.r1.json",  # revision 1 is never written
        f"{HASH}_step_000100.r02.json",
        f"{HASH}_step_-00100.json",
        "experiment.json",
        f"{HASH}_architecture.json",
        f"{HASH.upper()}_step_000100.json",
        f"{HASH}_step_000100.json\n",
        "\u0660123456789abcde_step_000100.json",
    ],
)
def test_foreign_names_are_no_checkpoints(name):
    assert parse_checkpoint_file(name) is None or parse_checkpoint_file(name)[1] != "json"


@pytest.mark.parametrize(
    "file",
    [
        "../x.safetensors",
        "/etc/passwd",
        f"{HASH}_step_000101.safetensors",
        f"{HASH}_step_000100.json",
    ],
)
def test_a_manifest_cannot_name_files_of_others(file):
    with pytest.raises(FormatError):
        CheckpointName(exp_hash=HASH, step=100).file_key(file)


@pytest.mark.parametrize("label", ["", "a/b", "..", "a b", "a.b", "x" * 65, None, "-x", "nul\0"])
def test_labels_that_cannot_be_file_names_are_refused(label):
    with pytest.raises(ValueError, match="cannot be part of a file name"):
        layout.check_label(label, what="backup name")


def test_config_names_tell_name_and_revision():
    assert layout.parse_config_name(HASH, f"{HASH}_config.r12.yaml") == ("config", 12)
    assert layout.parse_config_name(HASH, f"{HASH}_config.yaml") == ("config", 1)
    assert layout.parse_config_name(HASH, "ffffffffffffffff_config.yaml") is None
