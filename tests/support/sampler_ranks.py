"""One of two ranks: goes through a data set, discards, saves, goes on anew; says what it got.

python sampler_ranks.py FOLDER RANK
"""

import json
import sys

import torch.distributed as dist
from torch.utils.data import DataLoader

from weightslab.components import ResumableSampler


class Items:
    def __getitem__(self, index):
        return index


def main():
    folder, rank = sys.argv[1], int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    sampler = ResumableSampler(21, batch_size=4)
    loader = DataLoader(Items(), batch_sampler=sampler, num_workers=1)
    batches, states = [], []
    for _ in range(2):
        for batch in loader:
            batches.append(batch.tolist())
            states.append(sampler.state_dict())
            if len(batches) == 1:
                sampler.discard([20])
    theirs = [None, None]
    dist.all_gather_object(theirs, states)
    resumed = ResumableSampler(sampler.samples, batch_size=4)
    resumed.load_state_dict(states[1])
    rest = [batch for _ in range(2) for batch in resumed]
    sys.stdout.write(
        json.dumps(
            {
                "batches": batches,
                "rest": rest,
                "agree": theirs[0] == theirs[1],
                "ranks": [sampler.plan.num_replicas, sampler.plan.rank],
            }
        )
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
