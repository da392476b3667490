"""One of two ranks: trains a little, saves and loads, and says what it saw.

python ranks.py FOLDER RANK all|first|late
"""

import json
import logging
import sys
from pathlib import Path

import torch.distributed as dist

from support.training import CONFIG, make, train
from weightslab.components import CheckpointManagerV2


def main():
    folder, rank, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    logging.disable(logging.CRITICAL)

    def join():
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
        )

    if mode != "late":
        join()
    with CheckpointManagerV2(folder / "root") as manager:
        if mode == "late":  # the manager is older than the ranks
            join()
        model, optimizer = make()
        update = manager.update_experiment_hash(model, CONFIG, range(10))
        found = manager.load_latest_checkpoint(model, optimizer=optimizer)
        dist.barrier()  # no rank may still be looking for the latest when rank 0 saves
        train(model, optimizer)
        path = None
        if mode != "first" or rank == 0:
            path = str(manager.save_model_checkpoint(model, step=1, optimizer=optimizer))
            manager.save_config(CONFIG)
        dist.barrier()  # rank 0 has committed
        fresh, fresh_optimizer = make(seed=5)
        loaded = manager.load_latest_checkpoint(fresh, optimizer=fresh_optimizer)
        equal = all(
            bool((a == b).all())
            for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
        )
    sys.stdout.write(
        json.dumps(
            {
                "hash": update.exp_hash,
                "is_new": update.is_new,
                "found": found is not None,
                "path": path,
                "step": loaded["step"],
                "equal": equal,
            }
        )
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
