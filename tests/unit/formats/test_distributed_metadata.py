"""The `.metadata` of torch.distributed.checkpoint: what it says has to fit together."""

import pickle
from dataclasses import replace

import pytest
import torch
from support.roots import fast_folder
from support.trainer_folders import WEIGHTS, distributed
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
)

from weightslab.formats import import_root
from weightslab.formats.distributed_folders import FORMAT

pytestmark = pytest.mark.slow  # torch.distributed.checkpoint takes seconds to import
KEY = "model.layer.weight"


@pytest.fixture
def place():
    with fast_folder() as folder:
        yield distributed(folder / "dcp", {"model": dict(WEIGHTS)})


def change(folder, **how):
    """Change the metadata: `info` of the place, `pieces`, `dtype`, `path`, or anything by `do`."""
    path = folder / ".metadata"
    found = pickle.loads(path.read_bytes())
    (index,) = [i for i in found.storage_data if i.fqn == KEY]
    entry = found.state_dict_metadata[KEY]
    if "info" in how:
        found.storage_data[index] = replace(found.storage_data[index], **how["info"])
    if "pieces" in how:
        entry.chunks = [
            ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
            for offsets, sizes in how["pieces"]
        ]
        for offsets, _ in how["pieces"]:
            found.storage_data[MetadataIndex(KEY, torch.Size(offsets))] = found.storage_data[index]
    if "dtype" in how:
        entry.properties.dtype = how["dtype"]
    if "path" in how:
        found.planner_data[KEY] = how["path"]
    how.get("do", lambda _: None)(found)
    path.write_bytes(pickle.dumps(found))


def reason(folder):
    report = import_root(folder, folder.parent / "root")
    assert not report.is_complete
    return [c.reason for c in report.failed] + [why for _, why in report.problems]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"info": {"relative_path": "../../etc/passwd"}}, "is no name of a file"),
        ({"info": {"relative_path": "/etc/passwd"}}, "is no name of a file"),
        ({"info": {"relative_path": "__9_9.distcp"}}, "__9_9.distcp is not in dcp"),
        ({"info": {"offset": 10**9}}, "bytes, not 10000"),
        ({"info": {"offset": -1}}, "is outside of"),
        ({"info": {"length": 2**70}}, "bytes, not"),
        ({"info": {"length": "x"}}, "is not in order"),
        ({"info": {"length": 20}}, "cut off or damaged"),
        ({"info": {"transform_descriptors": ["zstd"]}}, "is stored transformed"),
        ({"pieces": []}, "has no pieces"),
        ({"pieces": [((0, 0), (1, 3))]}, "do not fill it exactly"),
        ({"pieces": [((0, 0), (2, 3)), ((1, 0), (1, 3))]}, "do not fill it exactly"),
        ({"pieces": [((0, 0), (1, 3)), ((0, 0), (1, 3))]}, "do not fill it exactly"),
        ({"pieces": [((0, 2), (2, 3))]}, "lies outside of it"),
        ({"pieces": [((0,), (6,))]}, "lies outside of it"),
        ({"pieces": [((0, 0), (2**40, 3))]}, "lies outside of it"),
        ({"pieces": [((0, 0), (1, 3)), ((1, 0), (1, 3))]}, "a piece of 'model.layer.weight' is"),
        ({"dtype": torch.float64}, "a piece of 'model.layer.weight' is torch.float32"),
        ({"path": ("model", "layer.bias")}, "is there twice"),
        ({"path": ("model", "layer.bias", "x")}, "is there twice"),
        ({"path": ("model", 5)}, "has no state dict under a known name"),
        ({"path": ("model", 3.5)}, "path in .metadata"),
        (
            {
                "do": lambda m: m.planner_data.update(
                    {k: ("x", n + 1) for n, k in enumerate(m.planner_data)}
                )
            },
            "has gaps",
        ),
        ({"do": lambda m: m.storage_data.clear()}, "has no place in .metadata"),
        ({"do": lambda m: setattr(m, "storage_data", None)}, "what is stored where"),
        ({"do": lambda m: m.state_dict_metadata.update({KEY: 3})}, "neither tensor nor object"),
        (
            {"do": lambda m: m.state_dict_metadata.update({KEY: BytesStorageMetadata()})},
            "has no place in .metadata",
        ),
    ],
)
def test_metadata_that_does_not_fit_is_refused(place, how, text):
    change(place, **how)
    assert any(text in why for why in reason(place)), reason(place)


def test_what_is_no_metadata_is_refused(place):
    for content in (b"", b"\x80\x04N.", b"text", pickle.dumps({"a": 1})):
        (place / ".metadata").write_bytes(content)
        assert reason(place)


def test_pieces_are_put_where_they_belong(place):
    from weightslab.formats.distributed_folders import _load
    from weightslab.formats.held import hold_file

    torch.save(WEIGHTS["layer.weight"][:1].clone(), place / "one.distcp")
    torch.save(WEIGHTS["layer.weight"][1:].clone(), place / "two.distcp")

    def split(found):
        (index,) = [i for i in found.storage_data if i.fqn == KEY]
        whole = found.storage_data.pop(index)
        pieces = []
        for row, name in enumerate(("one.distcp", "two.distcp")):
            size = (place / name).stat().st_size
            at = MetadataIndex(KEY, torch.Size((row, 0)))
            found.storage_data[at] = replace(whole, relative_path=name, offset=0, length=size)
            pieces.append(ChunkStorageMetadata(torch.Size((row, 0)), torch.Size((1, 3))))
        found.state_dict_metadata[KEY].chunks = pieces

    change(place, do=split)

    class Reader:
        trust = False
        hold = staticmethod(hold_file)

    (checkpoint,) = FORMAT.open(place).checkpoints
    assert [path.name for path in checkpoint.files] == [
        ".metadata", "__0_0.distcp", "one.distcp", "two.distcp",
    ]  # fmt: skip
    state = _load(Reader(), folder=place)
    assert torch.equal(state.models[""]["layer.weight"], WEIGHTS["layer.weight"])


@pytest.mark.parametrize("named", [True, False])
def test_an_optimizer_has_its_parameters_numbered(named):
    from weightslab.formats.distributed_folders import _optimizer

    names = ["b", "a"] if named else [0, 1]
    state = {
        "state": {str(names[1]): {"step": 1.0}},
        "param_groups": [{"lr": 1, "params": names[:1]}, {"lr": 2, "params": names[1:]}],
    }
    assert _optimizer(state) == {
        "state": {1: {"step": 1.0}},
        "param_groups": [{"lr": 1, "params": [0]}, {"lr": 2, "params": [1]}],
    }
