"""`ddp-assist check` on hosts of many kinds: what is wrong there, and nothing else.

Each host is a set of namespaces of its own, so that nothing else of this machine is seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import AS_NOBODY, reachable

from ddp_assist.app.diagnose import weights

pytestmark = pytest.mark.needs("namespaces", "ip", "setpriv")
BOX = ["unshare", "-n", "-m", "-p", "-u", "--fork", "--kill-child=SIGKILL", "--mount-proc",
       "--propagation", "private", "bash", "-c"]  # fmt: skip
NET = (
    "hostname box; ip link set lo up; ip link add eth0 type veth peer name eth0p; "
    "ip addr add 10.66.0.1/24 dev eth0; ip link set eth0 up; ip link set eth0p up; "
    "printf '127.0.0.1 localhost\\n10.66.0.1 box\\n' >$STATE/hosts; "
    "mount --bind $STATE/hosts /etc/hosts; "
    "mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm; mount --bind /dev/null /dev/kmsg; "
)
OF_THE_MACHINE = {"memory", "disk"}
"""What no namespace keeps apart."""
FAR = ["--", "torchrun", "--nnodes=2", "--node-rank=1", "--nproc-per-node=1",
       "--master-addr=10.77.0.1", "--master-port=29500", "train.py"]  # fmt: skip
HERE = ["--", "torchrun", "--nproc-per-node=2", "--master-port=29500", "train.py"]
Check = Callable[..., tuple[set[str], set[str], set[str]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Keys that are bad, causes, and all keys."""
    tmp_path.chmod(0o777)
    (tmp_path / "train.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    )

    def run(setup: str, *words: str, nobody: bool = False, **env: str) -> Any:
        setup = NET + setup.replace("NET;", "") if setup.startswith("NET;") else setup
        user = AS_NOBODY if nobody else []
        done = subprocess.run(
            [*BOX, f'{setup} exec "$0" "$@"', *user, sys.executable, "-m", "ddp_assist", "check",
             "--json", *words],
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
            preexec_fn=lambda: reachable(tmp_path),
            env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
                 "HOME": str(tmp_path), "STATE": str(tmp_path), **env},
        )  # fmt: skip
        assert done.returncode in (0, 1, 5), done.stderr
        said = json.loads(done.stdout)
        keys = {f"{f['probe']}.{f['outcome']}" for f in said["findings"]}
        bad = {key for key in keys if weights().get(key) == "bad"}
        assert not [f for f in said["findings"] if "the probe failed" in f["sentence"]]
        return (
            {key for key in bad if key.partition(".")[0] not in OF_THE_MACHINE},
            {cause["id"] for cause in said["causes"]} - {"rank-oom-killed", "disk-full"},
            keys,
        )

    return run


UNLIKE = {
    "plain": ("NET;", [], False, {}, set()),
    "nobody": ("NET;", [], True, {}, set()),
    "no-interface": ("", [], False, {}, set()),
    "loopback-down": ("NET; ip link set lo down;", [], False, {}, set()),
    "no-resolver": ("NET; mount --bind /dev/null /etc/resolv.conf;", [], False, {}, set()),
    "no-hosts-file": ("NET; mount --bind /dev/null /etc/hosts;", [], False, {}, set()),
    "no-ipv6": ("NET; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6;", HERE, False, {}, set()),
    "hidepid": ("NET; mount -o remount,hidepid=2 /proc;", HERE, True, {}, set()),
    "no-sys": ("NET; umount -l /sys;", HERE, False, {}, set()),
    "like-a-container": (
        "NET; exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\";",
        HERE, False, {}, set(),
    ),
    "no-path-no-home": ("NET; unset HOME; PATH=/nowhere", [], False, {}, set()),
    "cwd-gone": ("NET; mkdir gone; cd gone; rmdir ../gone;", [], False, {}, set()),
    "no-route": ("NET;", FAR, False, {}, {"host-unreachable"}),
    "other-node-down": (
        "NET; ip addr add 10.77.0.2/24 dev eth0;", FAR, False, {}, {"host-unreachable"},
    ),
    "few-files": ("NET; ulimit -n 64;", [], False, {}, {"fd-limit"}),
    "few-processes": ("NET; ulimit -u 60;", [], True, {}, {"process-limit"}),
    "small-shm": ("NET; mount -t tmpfs -o size=8m tmpfs /dev/shm;", [], False, {},
                  {"shm-too-small"}),
    "no-shm": ("NET; umount -l /dev/shm /dev/shm; mount -t tmpfs -o ro tmpfs /dev/shm;", [], False,
               {}, {"shm-not-writable"}),
    "rank-of-an-old-shell": ("NET;", [], False, {"RANK": "1", "WORLD_SIZE": "2"}, set()),
    "rank-of-an-old-shell-under-torchrun": (
        "NET;", HERE, False, {"RANK": "1", "WORLD_SIZE": "2"}, set(),
    ),
    "options-of-an-old-shell": ("NET;", [], False, {"PET_NNODES": "2"}, {"env-left-exported"}),
    "no-such-interface": ("NET;", [], False, {"GLOO_SOCKET_IFNAME": "ens5f0"},
                          {"interface-invalid"}),
}  # fmt: skip


@pytest.mark.parametrize("host", UNLIKE)
def test_what_is_wrong_there_and_nothing_else(check: Check, host: str) -> None:
    setup, words, nobody, env, expected = UNLIKE[host]
    bad, causes, _ = check(setup, *words, nobody=nobody, **env)
    assert causes == expected
    assert bool(bad) == bool(expected), bad


def test_a_rank_of_an_old_shell_is_spoken_of(check: Check) -> None:
    _, _, keys = check("NET;", RANK="1", WORLD_SIZE="2")
    assert "env.rank-in-shell" in keys


def test_a_torchrun_of_yesterday_on_torchs_port_is_wrong_without_a_launch_too(
    check: Check, tmp_path: Path
) -> None:
    (tmp_path / "old.py").write_text(
        "import socket, time; s = socket.create_server(('', 29500)); "
        "open('up', 'w').close(); time.sleep(600)"
    )
    old = (
        f"NET; ( setsid bash -c 'exec -a torchrun {sys.executable} old.py' >/dev/null 2>&1 & ); "
        "until [ -e up ]; do sleep 0.05; done;"
    )
    bad, causes, _ = check(old)
    assert bad == {"port.held-by-orphan"} and causes == {"port-held-by-orphan"}
