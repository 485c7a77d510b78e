"""`run` in front of a launch whose ranks have networks of their own: it looks from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
TRAIN = "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
LAUNCH = """
export MASTER_ADDR=10.66.7.1 MASTER_PORT=29500 WORLD_SIZE=2
RANK=0 GLOO_SOCKET_IFNAME={one} ip netns exec {one} {python} {script} &
RANK=1 GLOO_SOCKET_IFNAME={two} ip netns exec {two} {python} {script} &
wait
"""
FILTER = """table inet t {
  chain c {
    type filter hook input priority 0
    tcp dport 29500 drop
  }
}
"""


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two networks with a wire between them."""
    one, two = (f"dr{os.getpid() % 10000}{side}" for side in "ab")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in (one, two):
            ip("netns", "add", name)
        ip("link", "add", one, "netns", one, "type", "veth", "peer", "name", two, "netns", two)
        for number, name in ((1, one), (2, two)):
            ip("-n", name, "addr", "add", f"10.66.7.{number}/24", "dev", name)
            for link in (name, "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield one, two
    finally:
        for name in (one, two):
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.needs("root", "namespaces", "ip", "nft", "nsenter")
def test_a_filter_in_the_network_of_a_rank(hosts: tuple[str, str], tmp_path: Path) -> None:
    one, two = hosts
    (tmp_path / "filter").write_text(FILTER)
    subprocess.run(["ip", "netns", "exec", one, "nft", "-f", tmp_path / "filter"], check=True)
    script, job = tmp_path / "train.py", tmp_path / "job.sh"
    script.write_text(TRAIN)
    job.write_text(LAUNCH.format(one=one, two=two, python=sys.executable, script=script))
    done = subprocess.run(
        [str(BIN / "ddp-assist"), "run", "--no-trial", "--json", "--hang-after", "5", "--", "bash",
         str(job)], capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["causes"][0]["id"] == "firewall-blocks-port", done.stdout
