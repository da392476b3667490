"""Reuse: what is linked, what is written, and that each checkpoint stands alone."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.repo import HASH, Repo

from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.commit import delete_checkpoint
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.verify import verify_checkpoint
from weightslab.engine.storage import LocalStore, MemoryStore
from weightslab.engine.tensors.packing import PackedTensor, pack

MIB = 1 << 20
FOLDER = f"checkpoints/{HASH}/model/"


def image(**tensors):
    return pack(
        {
            name: PackedTensor(dtype="U8", shape=(len(data),), data=memoryview(data))
            for name, data in tensors.items()
        }
    )


def filled(letter, mib):
    return letter.encode() * int(mib * MIB)


def content(repo, manifest):
    """Return the bytes of every tensor of a checkpoint."""
    name = manifest.name
    return {
        key: bytes(repo.store.map(name.file_key(t.file))[t.offset : t.offset + t.size_bytes])
        for key, t in manifest.tensors.items()
    }


def files(repo, step):
    stem = CheckpointName(exp_hash=HASH, step=step).stem
    names = repo.store.list(FOLDER)
    return [n.removeprefix(stem + ".") for n in names if n.startswith(stem) and "json" not in n]


@pytest.fixture(params=["memory", "local"])
def repo(request, tmp_path):
    return Repo(MemoryStore() if request.param == "memory" else LocalStore(tmp_path))


def save(repo, step, **parts):
    state = {part: {} for part in parts}
    return repo.commit(step=step, images=parts, state=state)[0]


def test_frozen_backbone_is_linked_and_only_the_head_is_written(repo):
    backbone = filled("b", 4)
    save(repo, 1, model=image(backbone=backbone, head=b"one"))
    second = save(repo, 2, model=image(backbone=backbone, head=b"two"))
    assert files(repo, 2) == ["partial.safetensors", "ref1.safetensors"]
    first_key, ref_key = (
        FOLDER + f"{HASH}_step_000001.safetensors",
        FOLDER + f"{HASH}_step_000002.ref1.safetensors",
    )
    assert repo.store.stat(first_key).inode == repo.store.stat(ref_key).inode
    assert content(repo, second) == {"model/backbone": backbone, "model/head": b"two"}
    assert verify_checkpoint(repo.store, second.name) == []


def test_each_checkpoint_survives_the_deletion_of_all_others(repo):
    backbone = filled("b", 4)
    names = [
        save(repo, step, model=image(backbone=backbone, head=b"%d" % step)).name
        for step in (1, 2, 3)
    ]
    delete_checkpoint(repo.store, names[0])
    delete_checkpoint(repo.store, names[1])
    last = read_manifest(repo.store, names[2])
    assert content(repo, last) == {"model/backbone": backbone, "model/head": b"3"}
    assert verify_checkpoint(repo.store, names[2]) == []


def test_unchanged_model_keeps_a_file_that_any_reader_of_safetensors_knows(repo):
    weights = image(w=filled("w", 3), empty=b"")
    save(repo, 1, model=weights, training=image(m=filled("1", 1)))
    second = save(repo, 2, model=weights, training=image(m=filled("2", 1)))
    assert files(repo, 2) == ["safetensors", "training.safetensors"]
    assert second.weights_file() == f"{HASH}_step_000002.safetensors"
    inodes = {
        repo.store.stat(FOLDER + f"{HASH}_step_{step:06d}.safetensors").inode for step in (1, 2)
    }
    assert len(inodes) == 1
    assert set(second.tensors) == {"model/w", "model/empty", "training/m"}
    assert verify_checkpoint(repo.store, second.name) == []


@pytest.mark.parametrize(
    ("unchanged", "changed"),
    [(0.9, 1), (1, 10.5)],
    ids=["below 1 MiB", "below a tenth"],
)
def test_little_that_is_unchanged_is_written_again(repo, unchanged, changed):
    mask = filled("m", unchanged)
    save(repo, 1, model=image(mask=mask, w=filled("1", changed)))
    save(repo, 2, model=image(mask=mask, w=filled("2", changed)))
    assert files(repo, 2) == ["safetensors"]


def test_unchanged_tensors_in_a_mostly_dead_file_move_into_a_stable_one_that_is_linked_later(repo):
    frozen = filled("f", 2)
    for step in (1, 2, 3, 4):
        last = save(repo, step, model=image(frozen=frozen, w=filled(str(step), 5)))
    assert files(repo, 1) == ["safetensors"]
    assert files(repo, 2) == ["partial.safetensors", "stable.safetensors"]
    assert files(repo, 3) == files(repo, 4) == ["partial.safetensors", "ref1.safetensors"]
    assert content(repo, last)["model/frozen"] == frozen
    assert verify_checkpoint(repo.store, last.name) == []


def test_bytes_are_found_under_other_names_and_in_other_parts(repo):
    base = filled("b", 2)
    save(repo, 1, model=image(base=base))
    second = save(repo, 2, model=image(renamed=base), training=image(ema=base, m=b"m"))
    assert content(repo, second) == {
        "model/renamed": base,
        "training/ema": base,
        "training/m": b"m",
    }
    assert files(repo, 2) == ["ref1.safetensors", "training.partial.safetensors"]
    assert second.parts == ("model", "training")


def test_damaged_source_is_not_trusted_and_the_bytes_are_written_again(tmp_path, caplog):
    repo = Repo(LocalStore(tmp_path))
    backbone = filled("b", 4)
    save(repo, 1, model=image(backbone=backbone, head=b"one"))
    path = tmp_path / FOLDER / f"{HASH}_step_000001.safetensors"
    data = bytearray(path.read_bytes())
    data[2 * MIB] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        second = save(repo, 2, model=image(backbone=backbone, head=b"two"))
    assert "damaged" in caplog.text
    assert files(repo, 2) == ["safetensors"]
    assert content(repo, second)["model/backbone"] == backbone


def test_source_that_was_deleted_behind_the_catalog_is_written_again(repo):
    backbone = filled("b", 4)
    first = save(repo, 1, model=image(backbone=backbone, head=b"one"))
    places = repo.catalog.locate({t.digest for t in first.tensors.values()})
    delete_checkpoint(repo.store, first.name)
    repo.catalog.locate = lambda digests: places
    second = save(repo, 2, model=image(backbone=backbone, head=b"two"))
    assert files(repo, 2) == ["safetensors"]
    assert content(repo, second)["model/backbone"] == backbone


def test_store_that_cannot_link_writes_the_bytes(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    repo = Repo(LocalStore(tmp_path))
    weights = image(w=filled("w", 2))
    save(repo, 1, model=weights)
    save(repo, 2, model=weights)
    assert files(repo, 2) == ["safetensors"]
    assert (tmp_path / FOLDER / f"{HASH}_step_000002.safetensors").stat().st_nlink == 1


def test_link_is_verified_once_and_again_only_when_the_file_changed(tmp_path, monkeypatch):
    from weightslab.engine.repository import reuse

    checked, plain = [], reuse.verify_file

    def watch(data, file, tensors, *, names):
        checked.append(sorted(names))
        return plain(data, file, tensors, names=names)

    monkeypatch.setattr(reuse, "verify_file", watch)
    repo = Repo(LocalStore(tmp_path))
    for step in (1, 2, 3):
        save(repo, step, model=image(b=filled("b", 2), head=b"%d" % step))
    assert checked == [["model/b"]]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
@pytest.mark.slow
def test_whatever_changes_every_checkpoint_reads_back_and_verifies(data):
    repo = Repo()
    sizes = [1024, MIB // 2, MIB, 2 * MIB]
    saved = {}
    for step in range(1, 1 + data.draw(st.integers(2, 5))):
        parts = {}
        for part in ("model", "training"):
            names = data.draw(st.sets(st.sampled_from("abcd"), min_size=1))
            parts[part] = image(
                **{
                    n: data.draw(st.sampled_from("xyz")).encode()
                    * data.draw(st.sampled_from(sizes))
                    for n in sorted(names)
                }
            )
        expected = {
            f"{part}/{key}": bytes(tensor.data)
            for part, found in parts.items()
            for key, tensor in found.select(found.entries).items()
        }
        saved[save(repo, step, **parts).name] = expected
        if len(saved) > 1 and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(saved, key=lambda n: n.step)[:-1]))
            delete_checkpoint(repo.store, gone)
            del saved[gone]
    for name, expected in saved.items():
        assert content(repo, read_manifest(repo.store, name)) == expected
        assert verify_checkpoint(repo.store, name) == []
