"""What reading costs: a script of 2,000 lines with 50 imported files, and launch commands.

Time is CPU time of one thread: others may use the machine. The aims are 0.5 s and 5 ms.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import keep

from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target
from ddp_assist.probes.script.check import look
from ddp_assist.probes.script.facts import collector_rests

LINES = {
    "torchrun": "torchrun --nproc-per-node=8 --nnodes=2 --rdzv-endpoint=n0:29500 train.py --lr 1",
    "prefixes and a pipe": "CUDA_VISIBLE_DEVICES=0,1 nohup conda run -n ml accelerate launch"
    " --num_processes 2 train.py 2>&1 | tee log",
    "an sbatch file": "#!/bin/bash\n#SBATCH --nodes=4\n#SBATCH --ntasks-per-node=1\n"
    "export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)\n"
    + "echo step\n" * 60 + "srun torchrun --nnodes 4 --nproc-per-node 8 train.py\n",
}  # fmt: skip
HEAD = "import os\nimport torch\nimport torch.distributed as dist\n"
UNIT = '''
class Block{n}(torch.nn.Module):
    """A layer with a little of everything."""

    def __init__(self, width, rank=0):
        super().__init__()
        self.inner = torch.nn.Linear(width, width)
        self.rank = rank
        self.seen = [i * {n} for i in range(width) if i % 2]

    def forward(self, x):
        if self.rank == 0 and x.sum() > 0:
            x = x + self.inner(x)
        for i, item in enumerate(self.seen):
            x = x * (item or 1) + i
        return {{"x": x, "n": {n}}}["x"]


def step{n}(model, batch, rank):
    out = model(batch)
    t = torch.tensor([float(out.sum())])
    dist.all_reduce(t)
    return t.item() / max(1, dist.get_world_size())
'''
TAIL = """
def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for epoch in range(3):
        CALLS
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


def project(folder: Path, lines: int, files: int) -> Path:
    """A script of so many lines that imports so many files and uses all of them."""
    for n in range(files):
        (folder / f"part{n}.py").write_text(HEAD + "".join(UNIT.format(n=k) for k in range(6)))
    imports = "".join(f"import part{n}\n" for n in range(files))
    text, n = HEAD + imports, 0
    while text.count("\n") < lines - 60:
        text, n = text + UNIT.format(n=n), n + 1
    calls = [f"step{k}(Block{k}(4, rank), torch.ones(4), rank)" for k in range(n)]
    calls += [f"part{k}.step0(part{k}.Block0(4, rank), torch.ones(4), rank)" for k in range(files)]
    path = folder / "train.py"
    path.write_text(text + TAIL.replace("CALLS", "\n        ".join(calls)))
    return path


def cpu(work: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def read_and_check(target: Target) -> None:
    assert target.script is not None
    os.utime(target.script)  # what was read before is remembered until the file is written
    assert list(look(target))


def main() -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for lines, files in ((2000, 50), (1000, 25)):
            script = project(folder, lines, files)
            count = script.read_text().count("\n")
            target = Target(script=script, env={}, cwd=folder)
            with collector_rests():  # as in every diagnosis
                seconds = cpu(lambda target=target: read_and_check(target), 5)
            what = f"script of {count} lines, {files} imported files"
            rows.append({"what": what, "cpu_s": round(seconds, 3), "aim_s": 0.5})
        for what, text in LINES.items():
            seconds = cpu(lambda text=text: read_launch(text, {}, folder), 50)
            rows.append({"what": f"launch: {what}", "cpu_s": round(seconds, 5), "aim_s": 0.005})
    keep("script", rows)


if __name__ == "__main__":
    main()
