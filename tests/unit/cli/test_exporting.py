"""`weightslab export` and `diff --weights`: what needs real tensors."""

import json

import pytest
import torch
from safetensors.torch import load_file

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model):
    """Two checkpoints, between which one module changed; two models in the third."""
    path = tmp_path_factory.mktemp("cli") / "root"
    ledgers.clear_all()
    manager = CheckpointManagerV2(path)
    manager.update_experiment_hash(model, {"lr": 0.1})
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    with torch.no_grad():
        model[1].weight += 1
    manager.save_model_checkpoint(model, step=2, save_optimizer=False)
    two = {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 1)}
    manager.update_experiment_hash(two, {"lr": 0.2})
    manager.save_model_checkpoint(two, step=1, save_optimizer=False)
    ledgers.clear_all()
    return path


def read(path):
    found = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    )
    return {name: tensor.tolist() for name, tensor in found.items()}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_weights_are_written_for_others_and_never_over_something(
    cli, trained, model, tmp_path, name
):
    first = json.loads(cli("ls", "--json", "--root", trained).out)["experiments"][1]["hash"]
    done = cli("export", f"{first}@latest", tmp_path / name, "--root", trained)

    assert (done.code, done.err) == (0, "")
    expected = {key: tensor.tolist() for key, tensor in model.state_dict().items()}
    assert read(tmp_path / name) == expected
    assert cli("export", f"{first}@1", tmp_path / name, "--root", trained).code == 11
    assert read(tmp_path / name) == expected
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_of_several_models_one_is_chosen_by_its_part(cli, trained, tmp_path, suffix):
    path = tmp_path / f"b{suffix}"
    done = cli("export", "latest", path, "--root", trained)
    assert (done.code, "model.a, model.b" in done.err) == (10, True)
    assert cli("export", "latest", path, "--part", "model.b", "--root", trained).code == 0
    assert sorted(read(path)) == ["bias", "weight"]


def test_the_module_that_changed_has_the_bar_and_the_picture(cli, trained, tmp_path):
    pytest.importorskip("matplotlib")
    first = json.loads(cli("ls", "--json", "--root", trained).out)["experiments"][1]["hash"]
    refs = f"{first}@1", f"{first}@2"
    lines = cli("diff", *refs, "--weights", "--root", trained).out.splitlines()
    rows = lines[next(at for at, line in enumerate(lines) if line.startswith("MODULE")) + 1 :]
    assert rows[-1].split()[:2] == ["1", "█" * 12]
    picture = tmp_path / "change.png"
    assert cli("diff", *refs, "--plot", picture, "--root", trained).code == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert cli("diff", refs[0], refs[0], "--plot", tmp_path / "no.png", "--root", trained).code == 2
    found = json.loads(cli("diff", *refs, "--weights", "--json", "--root", trained).out)
    assert found["weights"][0]["num_same"] == 3


def test_the_form_is_given_or_told_by_the_name(cli, trained, tmp_path):
    words = ("export", "latest", "--part", "model.b", "--root", trained)
    assert cli(*words, tmp_path / "plain").code == 2
    assert cli(*words, tmp_path / "plain", "--to", "onnx").code == 2
    assert cli(*words, tmp_path / "plain", "--to", "safetensors").code == 0
    assert cli(*words, tmp_path / "folder", "--to", "huggingface").code == 0
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
        "weightslab-origin.json",
    ]
    assert (
        cli("export", "latest", tmp_path / "all.pt", "--part", "all", "--root", trained).code == 0
    )
    found = torch.load(tmp_path / "all.pt", weights_only=True)
    assert sorted(found["model_state_dict"]) == ["a", "b"]
