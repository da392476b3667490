"""Archives that were made to do harm, or were damaged on their way: nothing of them is taken."""

import io
import tarfile

import pytest
from support.collected import save
from support.roots import begin, small_root

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    ObjectNotFoundError,
    ReadOnlyStoreError,
    TruncatedError,
)
from weightslab.engine.jsonform import seal
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.transfer.bundle_file import LIST_NAME, BundleList
from weightslab.engine.transfer.tar_form import END, file_header, padding, read_members

HASH = "5f" * 8
KEY = f"checkpoints/{HASH}/notes/x.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a bundle with one checkpoint, and the root it is of."""
    path = tmp_path_factory.mktemp("hostile")
    root = small_root(path / "root")
    h, _ = begin(root, 0, num_samples=4)
    save(root, h, 1)
    return root.bundle(path / "b.wlb").path.read_bytes()


def taken(tmp_path, data):
    """Return the error with which an archive is refused, after a look that nothing was taken."""
    path = tmp_path / "b.wlb"
    path.write_bytes(data)
    root = small_root(tmp_path / "root")
    with pytest.raises(CheckpointError) as caught:
        root.unbundle(path)
    assert list((tmp_path / "root" / "checkpoints").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.wlb", "root"]
    return caught.value


def archive(*members, listed=None, end=END):
    """Return an archive of (name or header, bytes), with a list that fits unless one is given."""
    told = {n: (len(d), digest_bytes(d)) for n, d in members if isinstance(n, str)}
    own = listed if listed is not None else BundleList(members=told).to_bytes()
    parts = []
    for name, data in [*members, (LIST_NAME, own)]:
        header = file_header(name, len(data)) if isinstance(name, str) else name
        parts += [header, data, padding(len(data))]
    return b"".join([*parts, end])


def header(name, kind, *, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json",
        f"checkpoints/{HASH}/notes/../../../../outside.json",
        "/etc/passwd",
        f"/checkpoints/{HASH}/notes/x.json",
        f"C:/checkpoints/{HASH}/notes/x.json",
        f"checkpoints/{HASH}/C:/x.json",
        f"checkpoints\\{HASH}\\notes\\x.json",
        f"checkpoints/{HASH}/notes/..\\x.json",
        f"checkpoints/{HASH}/notes//x.json",
        f"checkpoints/{HASH}/notes/.x.tmp",
        f"checkpoints/{HASH}/other/x.json",
        f"checkpoints/{HASH}/notes/deep/x.json",
        "checkpoints/.trash/x/why.json",
        f"checkpoints/{HASH.upper()}/experiment.json",
        "logs/events.jsonl",
        "data/x.h5",
        "experiment.json",
        f"checkpoints/{HASH}/notes/\u202ex.json",
        f"checkpoints/{HASH}",
    ],
)
def test_names_that_no_root_has_are_refused(tmp_path, name):
    error = taken(tmp_path, archive((name, b"{}")))
    assert isinstance(error, FormatError)
    assert "is no name that a root has" in str(error)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (header(KEY, tarfile.SYMTYPE, link="/etc/passwd"), "is a symbolic link"),
        (header(KEY, tarfile.LNKTYPE, link="/etc/passwd"), "is a link to '/etc/passwd'"),
        (header(KEY, tarfile.LNKTYPE, link=KEY), "is no earlier file of the archive"),
        (header(KEY, tarfile.CHRTYPE), "is a device"),
        (header(KEY, tarfile.BLKTYPE), "is a device"),
        (header(KEY, tarfile.FIFOTYPE), "is a pipe"),
        (header(KEY, tarfile.DIRTYPE), "is a folder"),
        (header(KEY, tarfile.XHDTYPE), "is an extended header"),
        (header(KEY, tarfile.GNUTYPE_SPARSE), "is a sparse file"),
        (header(KEY, b"Z"), "is of the type b'Z'"),
        (header("x" * 600, tarfile.REGTYPE), "a name of 601 bytes"),
        (header("x", tarfile.GNUTYPE_LONGNAME), "a name of 0 bytes"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, member, words):
    error = taken(tmp_path, archive((member, b"")))
    assert isinstance(error, FormatError)
    assert words in str(error)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    assert "twice" in str(taken(tmp_path, archive((KEY, b"1"), (KEY, b"2"))))


def test_a_link_to_a_link_is_refused():
    first = header("b", tarfile.LNKTYPE, link="a")
    second = header("c", tarfile.LNKTYPE, link="b")
    data = archive(("a", b"x"), (first, b""), (second, b""))
    with pytest.raises(FormatError, match="no earlier file"):
        read_members(memoryview(data))


@pytest.mark.parametrize("size", [-1, -512, 1 << 62])
def test_sizes_that_lead_astray_are_refused(tmp_path, size):
    info = tarfile.TarInfo(KEY)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    error = taken(tmp_path, archive((bytes(block), b"")))
    assert isinstance(error, TruncatedError if size > 0 else FormatError)


def test_something_behind_the_end_is_refused(tmp_path):
    data = archive((KEY, b"{}"), end=END + b"x" * 512)
    assert "behind the end" in str(taken(tmp_path, data))


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (BundleList(), "does not hold what its list says"),
        (BundleList(members={KEY: (3, "xxh3-128:0")}), "does not hold what its list says"),
        (BundleList(members={KEY: (2, "xxh3-128:0")}), "is damaged, nothing was taken"),
        (
            BundleList(checkpoints={HASH: []}, members={KEY: (2, digest_bytes(b"{}"))}),
            "lacks what its list names",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, listed, words):
    error = taken(tmp_path, archive((KEY, b"{}"), listed=listed.to_bytes()))
    assert words in str(error)
    assert KEY in str(error) or HASH in str(error)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"schema": "weightslab.bundle"}', b"\xff", b"{" * 100_000]
)
def test_a_list_that_is_none_is_refused(tmp_path, text):
    assert isinstance(
        taken(tmp_path, archive((KEY, b"{}"), listed=text)), (FormatError, IntegrityError)
    )


def test_other_files_are_no_bundles(tmp_path):
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as file:
        file.addfile(tarfile.TarInfo("x"))
    zipped = io.BytesIO()
    with tarfile.open(fileobj=zipped, mode="w:gz") as file:
        file.addfile(tarfile.TarInfo("x"))
    for data in (
        b"",
        b"x",
        b"\0" * 512,
        END,
        b"PK\x03\x04" * 200,
        other.getvalue(),
        zipped.getvalue(),
    ):
        assert isinstance(taken(tmp_path, data), (FormatError, IntegrityError))


def test_a_bundle_that_was_cut_anywhere_is_refused(good, tmp_path):
    for at in {*range(0, len(good), 512), *range(0, len(good), 700), len(good) - 1}:
        assert isinstance(taken(tmp_path, good[:at]), (TruncatedError, FormatError)), at


def test_every_flipped_bit_that_counts_is_found_and_the_damaged_file_is_named(good, tmp_path):
    members = read_members(memoryview(good))
    for member in members[:-1]:
        data = bytearray(good)
        data[member.offset + member.size_bytes // 2] ^= 4
        error = taken(tmp_path, data)
        assert isinstance(error, DigestMismatchError)
        assert f"nothing was taken from it: {member.name}" in str(error)
    data = bytearray(good)
    data[members[-1].offset + 40] ^= 4
    assert isinstance(taken(tmp_path, data), DigestMismatchError)


def test_a_list_of_a_newer_version_says_what_to_do(tmp_path):
    newer = seal({"schema": "weightslab.bundle", "schema_version": 2})
    assert (
        taken(tmp_path, archive((KEY, b"{}"), listed=newer)).hint
        == "pip install --upgrade weightslab"
    )


def test_what_lies_in_a_consistent_bundle_is_still_checked_before_it_appears(good, tmp_path):
    """Somebody who can write digests can write a list that fits; tensors have digests of their own."""
    members = read_members(memoryview(good))
    files = {m.name: bytearray(good[m.offset : m.offset + m.size_bytes]) for m in members}
    listed = BundleList.from_bytes(files.pop(LIST_NAME))
    weights = next(n for n in files if n.endswith("_step_000001.safetensors"))
    files[weights][-1] ^= 1
    told = {n: (len(d), digest_bytes(d)) for n, d in files.items()}
    forged = BundleList(checkpoints=listed.checkpoints, members=told).to_bytes()
    (tmp_path / "b.wlb").write_bytes(archive(*files.items(), listed=forged))
    root = small_root(tmp_path / "root")

    report = root.unbundle(tmp_path / "b.wlb")

    assert [c.status for c in report.checkpoints] == ["failed"]
    assert not report.is_complete
    assert root.checkpoints() == []
    assert not [*root.path.rglob("*_step_*")]


def test_a_bundle_that_is_not_there_and_a_root_that_is_only_read(good, tmp_path):
    with pytest.raises(ObjectNotFoundError):
        small_root(tmp_path / "root").unbundle(tmp_path / "none.wlb")
    (tmp_path / "b.wlb").write_bytes(good)
    with pytest.raises(ReadOnlyStoreError, match="take in a bundle"):
        CheckpointRoot(tmp_path / "root", read_only=True).unbundle(tmp_path / "b.wlb")
    with pytest.raises(CheckpointError):
        small_root(tmp_path / "root").unbundle(tmp_path)
