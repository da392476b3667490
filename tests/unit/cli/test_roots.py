"""Which root is meant; what is said of a folder that is none."""

import pytest

from weightslab.cli.roots import find_root
from weightslab.engine.errors import NotFoundError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WEIGHTSLAB_ROOT", raising=False)
    return tmp_path


def make(path):
    (path / "checkpoints").mkdir(parents=True)
    return path


def test_the_option_goes_before_the_variable_and_this_before_the_default(place, monkeypatch):
    for name in ("root_experiment", "by_variable", "by_option"):
        make(place / name)
    assert find_root(None).name == "root_experiment"
    monkeypatch.setenv("WEIGHTSLAB_ROOT", str(place / "by_variable"))
    assert find_root(None).name == "by_variable"
    assert find_root(place / "by_option").name == "by_option"


def test_without_a_root_it_is_said_how_to_give_one():
    with pytest.raises(NotFoundError, match="no folder root_experiment here") as caught:
        find_root(None)
    assert "--root FOLDER" in caught.value.hint
    assert "WEIGHTSLAB_ROOT" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ((), "it is empty"),
        (("notes.txt",), "it has no folder checkpoints"),
        (("config.json", "model.safetensors"), "a Hugging Face model"),
        (("pytorch_model.bin",), "a Hugging Face model"),
        (("checkpoint-10/trainer_state.json",), "an output folder of the Transformers Trainer"),
        (("lightning_logs/version_0/hparams.yaml",), "a log folder of Lightning"),
        (("checkpoints/epoch=1.ckpt",), "a log folder of Lightning"),
        ((".metadata", "__0_0.distcp"), "torch.distributed.checkpoint"),
        (("step_1.pt",), "files of torch.save"),
    ],
)
def test_a_root_of_another_kind_is_named(place, files, told):
    folder = place / "other"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    with pytest.raises(NotFoundError, match="is no root") as caught:
        find_root(folder)
    assert told in str(caught.value)


def test_a_folder_in_a_root_or_above_one_leads_to_it(place):
    inside = make(place / "runs") / "checkpoints" / "0123456789abcdef"
    inside.mkdir()
    (inside / "experiment.json").write_text("{}")
    with pytest.raises(NotFoundError, match="an experiment of a root") as caught:
        find_root(inside)
    assert caught.value.hint == f"the root is {place / 'runs'}"
    with pytest.raises(NotFoundError) as caught:
        find_root(place)
    assert caught.value.hint == f"there is one in it: --root {place / 'runs'}"


def test_a_file_is_no_root(place):
    (place / "file").write_text("")
    with pytest.raises(NotFoundError, match="is a file"):
        find_root(place / "file")
