"""Importing: each checkpoint once, with its origin; what cannot come in is named."""

import json

import pytest
import torch
from safetensors.torch import save_file, save_model

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import FormatError, NotFoundError
from weightslab.engine.root import CheckpointRoot
from weightslab.formats import import_root


def make(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def source(tmp_path):
    """A folder with a dictionary, a state dict, a safetensors file and two that are no good."""
    folder = tmp_path / "source"
    folder.mkdir()
    model, optimizer = make()
    torch.save(model.state_dict(), folder / "a.pt")
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "loss": 0.5,
    }
    torch.save(whole | {"epoch": 2, "args": {"lr": 0.01}}, folder / "b.pth")
    save_file(model.state_dict(), folder / "c_step_30.safetensors")
    torch.save(model, folder / "d.pt")
    (folder / "e.pt").write_bytes(b"")
    (folder / "readme.txt").write_text("not a checkpoint")
    return folder


def told(report):
    return [(c.key, c.status, c.step) for c in report.checkpoints]


def bits(state):
    return {k: v.numpy().tobytes() for k, v in state.items()}


def test_everything_that_can_come_in_does_and_the_rest_is_named(source, tmp_path):
    report = import_root(source, tmp_path / "root")
    assert told(report) == [
        ("a.pt", "imported", 0),
        ("b.pth", "imported", 7),
        ("c_step_30.safetensors", "imported", 30),
        ("d.pt", "failed", None),
        ("e.pt", "failed", None),
    ]
    assert not report.is_complete
    assert "torch.nn.modules.container.Sequential, which may run code" in report.failed[0].reason
    assert report.failed[1].reason == "e.pt is empty"


def test_weights_and_optimizer_come_in_bit_for_bit_and_load_into_live_objects(source, tmp_path):
    report = import_root(source / "b.pth", tmp_path / "root")
    model, optimizer = make(seed=1)
    with CheckpointManagerV2(tmp_path / "root") as manager:
        found = manager.load_checkpoint(
            7, report.checkpoints[0].exp_hash, model, optimizer=optimizer
        )
    first, before = make()
    assert bits(model.state_dict()) == bits(first.state_dict())
    assert optimizer.state_dict()["param_groups"] == before.state_dict()["param_groups"]
    states = [bits(s) for o in (optimizer, before) for s in o.state_dict()["state"].values()]
    assert states[:4] == states[4:]
    assert (found["epoch"], found["metrics"]) == (2, {"loss": 0.5})
    assert found["metadata"]["args"] == {"lr": 0.01}
    assert found["metadata"]["imported_from"]["format"] == "torch"


def test_a_second_run_adds_nothing(source, tmp_path):
    first = import_root(source, tmp_path / "root")
    files = sorted(p for p in (tmp_path / "root" / "checkpoints").rglob("*"))
    second = import_root(source, tmp_path / "root")
    assert [c.status for c in second.checkpoints] == ["known"] * 3 + ["failed"] * 2
    assert [c.exp_hash for c in second.checkpoints] == [c.exp_hash for c in first.checkpoints]
    assert sorted(p for p in (tmp_path / "root" / "checkpoints").rglob("*")) == files


def test_a_dry_run_writes_nothing_and_says_what_would_come_in(source, tmp_path):
    dry = import_root(source, tmp_path / "root", dry_run=True)
    assert not (tmp_path / "root").exists()
    assert [c.status for c in dry.checkpoints] == ["would import"] * 3 + ["failed"] * 2
    wet = import_root(source, tmp_path / "root")
    assert [c.exp_hash for c in wet.checkpoints] == [c.exp_hash for c in dry.checkpoints]


def test_the_source_is_as_it_was(source, tmp_path):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in source.iterdir()}
    import_root(source, tmp_path / "root")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in source.iterdir()} == before


def test_a_moved_source_is_known_again(source, tmp_path):
    import_root(source, tmp_path / "root")
    moved = source.rename(tmp_path / "elsewhere")
    again = import_root(moved, tmp_path / "root")
    assert {c.status for c in again.checkpoints} == {"known", "failed"}


def test_unrelated_sources_of_one_form_are_two_experiments(tmp_path):
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        torch.save(make(seed)[0].state_dict(), tmp_path / str(seed) / "model.pt")
    hashes = {
        import_root(tmp_path / str(s), tmp_path / "root").checkpoints[0].exp_hash for s in (0, 1)
    }
    assert len(hashes) == 2


def test_what_the_source_lacks_is_absent_and_the_identity_is_marked_weak(source, tmp_path):
    report = import_root(source / "a.pt", tmp_path / "root")
    root = CheckpointRoot(tmp_path / "root")
    record = root.get_experiment(report.checkpoints[0].exp_hash).record
    parts = record.components
    assert (parts.model, parts.config, parts.data) == (None, None, None)
    assert parts.origin is not None
    assert record.weak == ("model: known by keys, shapes and dtypes of its state (torch)",)
    assert record.facts["num_parameters"] == 4 * 8 + 8 + 8 * 2 + 2
    entry = root.latest()
    assert (entry.parent.kind, entry.parent.exact) == ("import", None)
    metadata = json.loads(
        (root.path / "checkpoints" / entry.name.manifest_key.split("/", 1)[1]).read_text()
    )
    assert metadata["metadata"]["imported_from"]["step_is"] == "unknown"


def test_tied_tensors_of_a_safetensors_file_stay_tied(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "tied.safetensors"))
    report = import_root(tmp_path / "tied.safetensors", tmp_path / "root")
    other = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    other[1].weight = other[0].weight
    with CheckpointManagerV2(tmp_path / "root") as manager:
        manager.load_checkpoint(0, report.checkpoints[0].exp_hash, other, load_optimizer=False)
    assert bits(other.state_dict()) == bits(model.state_dict())


def test_the_same_bytes_in_two_files_are_stored_once(tmp_path):
    big = {"w": torch.randn(1 << 20)}
    for n in (1, 2):
        torch.save(big, tmp_path / f"{n}.pt")
    import_root(tmp_path / "1.pt", tmp_path / "root")
    import_root(tmp_path / "2.pt", tmp_path / "root")
    files = list((tmp_path / "root").rglob("*.safetensors"))
    assert len({p.stat().st_ino for p in files}) == 1
    assert len(files) == 2


def test_training_goes_on_from_an_import_with_it_as_parent(source, tmp_path):
    report = import_root(source / "b.pth", tmp_path / "root")
    model, optimizer = make(seed=1)
    with CheckpointManagerV2(tmp_path / "root") as manager:
        manager.update_experiment_hash(model=model, config={"lr": 0.1})
        manager.load_checkpoint(7, report.checkpoints[0].exp_hash, model, optimizer=optimizer)
        manager.save_model_checkpoint(model, step=8, optimizer=optimizer)
        parent = manager.root.latest().parent
        assert (parent.exp_hash, parent.step) == (report.checkpoints[0].exp_hash, 7)
        assert manager.root.verify().findings == ()


def test_nothing_known_or_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(NotFoundError, match="there is no"):
        import_root(tmp_path / "none", tmp_path / "root")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="of a known format; known are"):
        import_root(tmp_path / "empty", tmp_path / "root")
    with pytest.raises(ValueError, match="'onnx' is no format; there are"):
        import_root(tmp_path / "empty", tmp_path / "root", format="onnx")


def test_names_that_a_terminal_would_obey_are_shown_inert(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a\x1b[31m.pt").write_bytes(b"")
    report = import_root(folder, tmp_path / "root")
    assert "\x1b" not in str(report)
    assert json.loads(json.dumps(report.to_dict()))["checkpoints"][0]["key"] == "a\x1b[31m.pt"
