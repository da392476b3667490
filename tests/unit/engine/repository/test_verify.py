"""Verification: what is read, what is counted, what a report says."""

import pytest
from support.repo import HASH, Repo, plain_image

from weightslab.engine.repository import layout
from weightslab.engine.repository.findings import Finding, VerifyReport
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.verify import verify_all, verify_checkpoint
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.tensors.packing import PackedTensor, pack

MODEL = f"checkpoints/{HASH}/model/"


class Counting(MemoryStore):
    """A store that remembers which keys were mapped."""

    def __init__(self):
        super().__init__()
        self.mapped = []

    def map(self, key):
        self.mapped.append(key)
        return super().map(key)


def verify(repo, **more):
    return verify_all(
        repo.store, [], names=[e.name for e in repo.catalog.checkpoints(HASH)], **more
    )


def test_report_of_a_whole_root_counts_files_bytes_and_checkpoints():
    repo = Repo()
    first, second = repo.commit(step=1)[0], repo.commit(step=2, content=b"other")[0]
    report = verify(repo)
    manifests = sum(repo.store.stat(m.name.manifest_key).size_bytes for m in (first, second))
    assert (report.num_checkpoints, report.num_files) == (2, 4)
    assert report.size_bytes == len(b"headweights") + len(b"headother") + manifests
    assert (list(report), len(report), bool(report)) == ([], 0, False)


def test_report_equals_the_list_of_its_findings():
    finding = Finding(key="a", problem="b")
    report = VerifyReport(findings=(finding,))
    assert report == [finding]
    assert [finding] == report
    assert report != []
    assert report[0] is finding
    assert report == VerifyReport(findings=(finding,), size_bytes=5)


def test_report_reads_as_one_line_and_one_for_each_finding():
    report = VerifyReport(
        findings=(Finding(key="a", problem="b"),), size_bytes=1500, num_files=2, num_checkpoints=1
    )
    assert str(report) == "2 files, 1,500 bytes, 1 checkpoints: 1 finding\na: b"


def test_damaged_checkpoints_are_named_once_and_without_what_is_no_damage():
    report = VerifyReport(
        findings=(
            Finding(key="a", problem="b", exp_hash=HASH, step=3, revision=1),
            Finding(key="c", problem="d", exp_hash=HASH, step=3, revision=1),
            Finding(key="e", problem="f", exp_hash=HASH, step=4, revision=1, is_damage=False),
            Finding(key="g", problem="h", exp_hash=HASH),
        )
    )
    assert report.damaged == ((HASH, 3, 1),)


def test_progress_goes_up_to_the_number_of_bytes_in_all():
    repo = Repo()
    repo.commit(step=1)
    repo.commit(step=2, content=b"other")
    repo.store.put(f"{MODEL}{HASH}_step_000002.safetensors", [b"cut"])
    seen = []
    report = verify(repo, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {report.size_bytes}
    assert seen[-1][0] == report.size_bytes
    assert len(report) == 1


def test_what_progress_raises_ends_the_verification():
    repo = Repo()
    repo.commit(step=1)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(repo, progress=stop)


def test_big_tensors_report_their_bytes_from_threads():
    repo = Repo()
    big = {
        name: PackedTensor(dtype="U8", shape=(2 << 20,), data=memoryview(bytes(2 << 20)))
        for name in "abc"
    }
    repo.commit(step=1, images={"model": pack(big)})
    seen = []
    report = verify(repo, progress=lambda done, _: seen.append(done))
    assert len(seen) >= 4
    assert seen[-1] == report.size_bytes > 6 << 20


def linked():
    """Two checkpoints of which the second links to the file of the first."""
    repo = Repo(Counting())
    backbone = bytes(range(256)) * (4 << 12)

    def image(head):
        tensors = {"backbone": backbone, "head": head}
        return pack(
            {
                name: PackedTensor(dtype="U8", shape=(len(data),), data=memoryview(data))
                for name, data in tensors.items()
            }
        )

    for step, head in ((1, b"one"), (2, b"two")):
        repo.commit(step=step, images={"model": image(head)})
    assert f"{HASH}_step_000002.ref1.safetensors" in repo.files()
    return repo


def test_file_with_two_names_is_hashed_once(monkeypatch):
    from weightslab.engine.tensors import check

    repo, hashed = linked(), []
    digest = check.digest_bytes
    monkeypatch.setattr(
        check,
        "digest_bytes",
        lambda data, **more: hashed.append(len(data)) or digest(data, **more),
    )
    assert verify(repo) == []
    assert hashed.count(4 << 20) == 1


def test_damage_of_a_file_with_two_names_is_found_in_both_checkpoints():
    repo = linked()
    content = bytearray(repo.store.map(f"{MODEL}{HASH}_step_000001.safetensors"))
    content[-100] ^= 1
    one, two = "000001.safetensors", "000002.ref1.safetensors"
    repo.store.put(f"{MODEL}{HASH}_step_{one}", [bytes(content)])
    repo.store.delete(f"{MODEL}{HASH}_step_{two}")
    repo.store.link(f"{MODEL}{HASH}_step_{one}", f"{MODEL}{HASH}_step_{two}")
    assert [(f.key, f.step) for f in verify(repo)] == [
        (f"{HASH}_step_{one}", 1),
        (f"{HASH}_step_{two}", 2),
    ]


def test_checkpoint_deleted_meanwhile_has_no_findings():
    name = CheckpointName(exp_hash=HASH, step=7)
    assert verify_checkpoint(MemoryStore(), name) == []


def test_damaged_manifest_is_found_under_its_key_and_names_its_checkpoint():
    repo = Repo()
    repo.commit(step=1)
    repo.commit(step=2)
    repo.store.put(f"{MODEL}{HASH}_step_000001.json", [b'{"schema_version": 99}'])
    (finding,) = verify(repo)
    assert finding.is_damage
    assert finding.key == layout.model_folder(HASH) + f"{HASH}_step_000001.json"
    assert (finding.exp_hash, finding.step, finding.revision) == (HASH, 1, 1)


def test_changed_header_is_a_finding():
    repo = Repo()
    repo.commit(step=1, images={"model": plain_image(b"weights")})
    repo.store.put(f"{MODEL}{HASH}_step_000001.safetensors", [b"Headweights"])
    (finding,) = verify(repo)
    assert "the header" in finding.problem
