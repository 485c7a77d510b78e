"""An old run that met and then stands still."""
import time

import torch.distributed as dist

dist.init_process_group("gloo")
print("idle", flush=True)
time.sleep(1800)
