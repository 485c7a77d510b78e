"""A real Slurm of two nodes inside namespaces: one daemon a node, one command run beside them.

The box has its own processes, network and mounts, so nothing of it is left when the command ends.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

BOX = ["unshare", "-n", "-m", "-p", "-u", "-i", "--fork", "--kill-child=SIGKILL", "--mount-proc",
       "--propagation", "private", "bash", "-c"]  # fmt: skip
CONF = """ClusterName=bed
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
ONE_HOST = "\n".join(
    f"NodeName=n{n} NodeHostname=bed NodeAddr=10.66.0.1 Port=1700{n} CPUs=8 RealMemory=1000"
    " State=UNKNOWN" for n in (1, 2)
)  # fmt: skip
START = """
set -u
hostname bed; ip link set lo up
# Slurm's daemons listen only where there is an address beside loopback.
ip link add eth0 type veth peer name eth0p; ip addr add 10.66.0.1/24 dev eth0
ip link set eth0 up; ip link set eth0p up
printf '127.0.0.1 localhost\n10.66.0.1 bed\n' >{dir}/hosts; mount --bind {dir}/hosts /etc/hosts
export SLURM_CONF={dir}/slurm.conf
munged --force --key-file={dir}/munge.key --socket={dir}/munge/socket --pid-file={dir}/munge/pid \
  --log-file={dir}/munge/log --seed-file={dir}/munge/seed >{dir}/munged.out 2>&1
slurmctld >{dir}/ctld.out 2>&1
slurmd -N n1 >{dir}/n1.out 2>&1; slurmd -N n2 >{dir}/n2.out 2>&1
for _ in $(seq 300); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && exec "$0" "$@"
  sleep 0.1
done
echo "the nodes did not come up" >&2; sinfo -N >&2; tail -n 5 {dir}/*.log {dir}/*.out >&2; exit 99
"""


def in_slurm(folder: Path, *command: str, timeout: float = 120) -> str:
    """What the command says where the cluster runs; `folder` holds all of its state."""
    (folder / "munge").mkdir()
    (folder / "state").mkdir()
    for node in ("n1", "n2"):
        (folder / "spool" / node).mkdir(parents=True)
    (folder / "munge.key").write_bytes(bytes(range(256)) * 4)
    (folder / "munge.key").chmod(0o600)
    conf = CONF.format(
        host="bed(10.66.0.1)", munge=folder / "munge", dir=folder, run=folder, nodes=ONE_HOST
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "cgroup.conf").write_text(CGROUP)
    done = subprocess.run(
        [*BOX, START.format(dir=folder), *command],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
