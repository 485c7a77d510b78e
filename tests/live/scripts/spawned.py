"""Workers of mp.spawn that meet where the environment says."""
import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WAIT = timedelta(seconds=int(os.environ.get("JOB_WAIT_S", "1800")))


def worker(rank, ranks):
    dist.init_process_group("gloo", rank=rank, world_size=ranks, timeout=WAIT)
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    if rank == 0:
        print("TRAINED total", total.item(), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    ranks = int(os.environ.get("RANKS", "2"))
    mp.spawn(worker, args=(ranks,), nprocs=ranks)
