"""Reading and restoring: everything is verified and fits before the first tensor changes."""

from datetime import datetime, timezone

import pytest
import torch
from support.training import bits, make, state_of, train

from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    FormatError,
    MissingObjectError,
    StateMismatchError,
)
from weightslab.engine.loading.reading import read_state
from weightslab.engine.loading.restoring import restore, summary
from weightslab.engine.loading.target import RestoreTarget
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.commit import commit_checkpoint
from weightslab.engine.saving.drafting import CheckpointFacts, make_draft
from weightslab.engine.storage.memory import MemoryStore

HASH = "0123456789abcdef"
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture
def saved():
    """A store, the manifest of a trained model with AdamW, and the live objects."""
    model, optimizer = make()
    train(model, optimizer)
    store = MemoryStore()
    return store, commit(store, {"model": model}, {"adam": optimizer}), model, optimizer


def commit(store, models, optimizers, **more):
    facts = {
        "exp_hash": HASH,
        "experiment_digest": "wl1:sha256:" + HASH * 4,
        "step": 4,
        "metadata": {"pair": (1, 2)},
        "metrics": {"loss": 0.5},
    }
    draft = make_draft(models, optimizers, CheckpointFacts(**(facts | more)))
    return commit_checkpoint(store, ScanCatalog(store), draft, clock=lambda: NOW)[0]


def load(store, manifest, model, optimizers, *, load_optimizer=True, given=True):
    target = RestoreTarget(
        models={"model": model}, optimizers=optimizers, load_optimizer=load_optimizer, given=given
    )
    restore(store, manifest, target)


def test_state_read_is_bit_equal_and_typed(saved):
    store, manifest, model, optimizer = saved
    state = read_state(store, manifest)
    assert bits(dict(state.models["model"].tensors)) == bits(dict(model.state_dict()))
    assert bits(state.training["optimizer"]["adam"]["state"]) == bits(optimizer.state_dict())
    assert state.training["optimizer"]["adam"]["class"] == "torch.optim.adamw.AdamW"


def test_without_training_its_bytes_are_not_touched(saved):
    store, manifest, _, _ = saved
    (file,) = (f for f in manifest.files if f.part == "training")
    store.delete(manifest.name.file_key(file.name))
    assert read_state(store, manifest, training=False).training is None
    with pytest.raises(MissingObjectError, match=file.name):
        read_state(store, manifest)


def test_optimizer_of_another_name_is_taken_if_there_is_one_on_each_side(saved):
    store, manifest, model, optimizer = saved
    fresh, fresh_optimizer = make(seed=3)
    load(store, manifest, fresh, {"optimizer": fresh_optimizer})
    assert state_of(fresh, fresh_optimizer) == state_of(model, optimizer)


def test_damage_of_the_training_file_leaves_the_model_untouched(saved):
    store, manifest, _, _ = saved
    (file,) = (f for f in manifest.files if f.part == "training")
    key = manifest.name.file_key(file.name)
    store.put(key, [bytes(store.map(key))[:-1] + b"\x55"])
    fresh, optimizer = make(seed=3)
    before = state_of(fresh, optimizer)
    with pytest.raises(DigestMismatchError):
        load(store, manifest, fresh, {"adam": optimizer})
    assert state_of(fresh, optimizer) == before


def test_optimizer_that_does_not_fit_leaves_the_model_untouched(saved):
    store, manifest, _, _ = saved
    fresh = make(seed=3)[0]
    before = state_of(fresh)
    with pytest.raises(StateMismatchError):
        load(store, manifest, fresh, {"adam": torch.optim.SGD(fresh.parameters(), lr=1)})
    assert state_of(fresh) == before


def test_registered_optimizer_without_state_is_a_warning_a_given_one_an_error(caplog):
    store = MemoryStore()
    model, optimizer = make()
    manifest = commit(store, {"model": model}, None)
    load(store, manifest, model, {"adam": optimizer}, given=False)
    assert "the registered optimizer stays as it is" in caplog.text
    with pytest.raises(StateMismatchError, match="load_optimizer=False"):
        load(store, manifest, model, {"adam": optimizer})


def test_object_that_fails_halfway_says_so():
    class Stubborn(torch.nn.Linear):
        def _load_from_state_dict(self, *arguments, **more):
            raise RuntimeError("no")

    store = MemoryStore()
    model = torch.nn.Sequential(Stubborn(2, 2))
    manifest = commit(store, {"model": model}, None)
    with pytest.raises(
        CheckpointError, match=r"failed while it took its state.*no; .*make it anew"
    ):
        load(store, manifest, model, None)


def test_summary_has_the_values_of_the_save(saved, tmp_path):
    _, manifest, _, _ = saved
    assert summary(manifest, folder=tmp_path) == {
        "step": 4,
        "revision": 1,
        "epoch": None,
        "samples_seen": None,
        "timestamp": "2026-01-02T00:00:00+00:00",
        "metadata": {"pair": (1, 2)},
        "metrics": {"loss": 0.5},
        "exp_hash": HASH,
        "path": tmp_path / f"{HASH}_step_000004.safetensors",
    }


def test_metadata_of_an_unknown_class_is_told_before_anything_changes(saved, tmp_path):
    from dataclasses import replace

    _, manifest, _, _ = saved
    odd = replace(manifest, metadata={"$enum": ["never.imported:Mode", "A"]})
    with pytest.raises(FormatError, match=r"import never\.imported before loading"):
        summary(odd, folder=tmp_path)
