"""Folders that the installed torch.distributed.checkpoint writes come in whole."""

import os
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from weightslab.components import CheckpointManagerV2
from weightslab.formats import import_root


def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def save_sharded(rank, folder):
    """Save a model whose tensors lie in two processes."""
    warnings.simplefilter("ignore")
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, _, _ = make()
    whole = {key: value.clone() for key, value in model.state_dict().items()}
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    states = get_state_dict(model, optimizer)
    dcp.save({"model": states[0], "optim": states[1], "step": 9}, checkpoint_id=f"{folder}/sharded")
    full = {key: value.full_tensor() for key, value in model.state_dict().items()}
    moments = {
        name: optimizer.state[parameter]["exp_avg"].full_tensor()
        for name, parameter in model.named_parameters()
    }
    if rank == 0:
        torch.save({"model": full, "exp_avg": moments, "before": whole}, f"{folder}/expected.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with checkpoints of one process (`step-3`) and of two (`sharded`)."""
    place = tmp_path_factory.mktemp("distributed")
    model, optimizer, scheduler = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as dcp

        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"scheduler": scheduler.state_dict(), "epoch": 1, "val_loss": 0.5}
        dcp.save(state, checkpoint_id=place / "run" / "step-3")
    return place


def test_a_checkpoint_of_one_process_goes_into_live_objects(folder, tmp_path):
    report = import_root(folder / "run", tmp_path / "root")
    model, optimizer, scheduler = make()
    kept = model.state_dict(), optimizer.state_dict(), scheduler.state_dict()
    other = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    fresh = torch.optim.AdamW(other.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(fresh, 2)
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as manager:
        manager.track(scheduler=schedule)
        found = manager.load_checkpoint(
            3, report.checkpoints[0].exp_hash, model=other, optimizer=fresh
        )
    assert report.is_complete
    assert (found["step"], found["epoch"], found["metrics"]) == (3, 1, {"val_loss": 0.5})
    assert all(torch.equal(other.state_dict()[key], value) for key, value in kept[0].items())
    live = fresh.state_dict()
    assert live["param_groups"] == kept[1]["param_groups"]
    for number, state in kept[1]["state"].items():
        assert all(torch.equal(live["state"][number][k], v) for k, v in state.items())
    assert schedule.state_dict() == kept[2]


@pytest.mark.skipif(os.name != "posix", reason="gloo over files")
def test_pieces_of_two_processes_are_put_together(folder, tmp_path):
    context = torch.multiprocessing.start_processes(
        save_sharded, args=(str(folder),), nprocs=2, start_method="fork", join=False
    )
    while not context.join():
        pass
    expected = torch.load(folder / "expected.pt", weights_only=True)

    report = import_root(folder / "sharded", tmp_path / "root")

    model, _, _ = make()
    optimizer = torch.optim.AdamW(model.parameters())
    with CheckpointManagerV2(tmp_path / "root", read_only=True) as manager:
        manager.load_checkpoint(9, report.checkpoints[0].exp_hash, model=model, optimizer=optimizer)
    assert len(list((folder / "sharded").glob("*.distcp"))) == 2
    for key, value in expected["model"].items():
        assert torch.equal(model.state_dict()[key], value)
        assert not torch.equal(expected["before"][key], value)
    for name, parameter in model.named_parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], expected["exp_avg"][name])
