"""Makes a golden root: `python tests/compat/make_golden.py tests/compat/v1`.

Run once per version of the on-disk format, by the release that introduces it. The folder is never
made again: every later release has to read it as it is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import h5py
import torch

from weightslab.components import CheckpointManagerV2, SampleSet


def digest_of(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor."""
    flat = tensor.detach().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model with tied weights, buffers, a frozen and a bfloat16 parameter."""
    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    )
    model[3].weight = model[2].weight
    model[0].bias.requires_grad_(False)
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)))
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Make a few steps; return the last loss."""
    for _ in range(steps):
        loss = (model(torch.randn(8, 4)).square().mean()) + model.scale.float().sum() * 0.1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main(folder: Path) -> None:
    """Write the root and what a reader has to find in it."""
    root = folder / "root"
    model, optimizer = build()
    expected: dict[str, object] = {"checkpoints": []}
    backup = folder / "table.h5"
    with h5py.File(backup, "w") as file:
        file["label"] = [0, 1, 1]

    def save(step: int, **more: object) -> None:
        manager.save_model_checkpoint(model, step=step, optimizer=optimizer, **more)
        entry = manager.root.get_checkpoint(manager.current_hash, step)
        moments = optimizer.state_dict()["state"]
        expected["checkpoints"].append(
            {
                "exp_hash": entry.name.exp_hash,
                "step": step,
                "revision": entry.name.revision,
                "sequence": entry.sequence,
                "metrics": dict(entry.metrics),
                "parent_step": entry.parent.step,
                "model": {k: digest_of(v) for k, v in model.state_dict().items()},
                "exp_avg": {str(k): digest_of(v["exp_avg"]) for k, v in moments.items()},
            }
        )

    with CheckpointManagerV2(root) as manager:
        uids = [*range(20), "a/b.png", "\u00fc.png", "007"]
        config = {"lr": 1e-2, "betas": [0.9, 0.999], "name": "golden", "root_log_dir": "x"}
        manager.update_experiment_hash(model=model, config=config, active_data_uids=uids)
        save(
            10, metrics={"loss": train(model, optimizer, 3)}, metadata={"note": (1, b"\x00", None)}
        )
        save(20, metrics={"loss": train(model, optimizer, 2)})
        train(model, optimizer, 1)
        save(20, metrics={"loss": float("nan")})
        manager.save_config({**config, "comment": "later"})
        manager.save_data_backup(backup)
        manager.update_experiment_hash(active_data_uids=uids[3:])
        save(30, metrics={"loss": train(model, optimizer, 1)})
        samples = SampleSet.from_uids(
            [*range(6000), "a/b.png"], discarded=[7], labels={1: 0, 2: "x"}
        )
        manager.update_experiment_hash(active_data_uids=samples)
        samples.discard([5, "a/b.png"])
        samples.restore([7])
        samples.add(["new", "8000"], labels={"new": [1, None]})
        manager.update_experiment_hash(active_data_uids=samples)
        save(40, metrics={"loss": 0.5})
        expected["hashes"] = manager.list_experiment_hashes()
        expected["changes"] = [c.text for c in manager.root.changes(*expected["hashes"][:2])]
    backup.unlink()
    (root / "data").rmdir()
    text = json.dumps(expected, indent=1, sort_keys=True, allow_nan=True)
    (folder / "expected.json").write_text(text + "\n")


def build_half_frozen() -> torch.nn.Module:
    """Return a model of two tensors just above 1 MiB; constant, so that they take little space here."""
    model = torch.nn.Module()
    for name, size in (("frozen", 270_000), ("trained", 280_000)):  # less than half is frozen
        model.register_parameter(name, torch.nn.Parameter(torch.zeros(size)))
    return model


def reuse(folder: Path) -> None:
    """Write a root whose checkpoints share files: a whole one, a stable one, a link."""
    model, expected = build_half_frozen(), {}
    with CheckpointManagerV2(folder / "reused") as manager:
        manager.update_experiment_hash(model=model)
        for step in (1, 2, 3):
            with torch.no_grad():
                model.trained.fill_(step)
            path = manager.save_model_checkpoint(model, step=step, save_optimizer=False)
            files = sorted(
                p.name.partition(".")[2] for p in path.parent.glob(f"*step_00000{step}.*")
            )
            expected[str(step)] = files
    (folder / "reused" / "data").rmdir()
    (folder / "reused.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if not (Path(sys.argv[1]) / "root").exists():
        main(Path(sys.argv[1]))
    reuse(Path(sys.argv[1]))
