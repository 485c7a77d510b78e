"""A small classifier under DDP; the launcher says who this rank is."""
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

WAIT = timedelta(seconds=int(os.environ.get("JOB_WAIT_S", "1800")))
dist.init_process_group("gloo", timeout=WAIT)
torch.manual_seed(7)
model = DDP(torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(3):
    points = torch.randn(16, 8)
    loss = torch.nn.functional.cross_entropy(model(points), points[:, :3].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
if dist.get_rank() == 0:
    print(f"TRAINED ranks={dist.get_world_size()} loss={loss.item():.3f}", flush=True)
dist.barrier()
dist.destroy_process_group()
