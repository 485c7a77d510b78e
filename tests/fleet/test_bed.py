"""Faults between real hosts, seen by an ordinary user, on namespaces with an sshd each."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fleet_nodes import PORT, ROOT, Nodes, as_alice, ours, start  # type: ignore[import-not-found]

sys.path.append(str(Path(__file__).parents[1] / "screens"))
from pty_terminal import Terminal  # type: ignore[import-not-found]  # noqa: E402

NEEDS = ("root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter", "setpriv", "gcc")
pytestmark = pytest.mark.needs(*NEEDS)
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
ALL = "node[1-4]"


def launch(*more: str, port: int = PORT) -> tuple[str, ...]:
    return (TORCHRUN, "--nnodes", "4", "--node-rank", "0", "--master-addr", "node1",
            "--master-port", str(port), "--nproc-per-node", "1", *more, "train.py")  # fmt: skip


def look(nodes: Nodes, *words: str, launch: tuple[str, ...] = launch(), **more: Any) -> Any:
    return nodes.fleet("-w", ALL, "--no-trial", *words, launch=launch, **more)


def causes(result: dict[str, Any]) -> list[str]:
    return [cause["id"] for cause in result["causes"] if cause["certainty"] != "possible"]


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {f["outcome"]: f["sentence"] for f in result["findings"] if f["probe"] == "fleet"}


def of(result: dict[str, Any], key: str) -> list[dict[str, Any]]:
    probe, _, outcome = key.partition(".")
    return [f for f in result["findings"] if (f["probe"], f["outcome"]) == (probe, outcome)]


@contextmanager
def filtered(bed: Nodes, name: str, *rules: str) -> Iterator[None]:
    bed.filter(name, *rules)
    try:
        yield
    finally:
        bed.filter(name)


@contextmanager
def known_as(bed: Nodes, name: str, own: str | None, **others: str) -> Iterator[None]:
    bed.hosts(name, own, **others)
    try:
        yield
    finally:
        bed.hosts(name, bed.address(name))


@contextmanager
def another_torch(bed: Nodes, name: str, store: str = "") -> Iterator[None]:
    """A node whose torch has another version, and further lines where it has its store."""
    torch = find_spec("torch")
    assert torch is not None and torch.origin is not None
    version = Path(torch.origin).with_name("version.py")
    stores = version.with_name("distributed") / "__init__.py"
    other = re.sub(r"(__version__ *= *)'[^']*'", r"\1'2.1.0'", version.read_text())
    (bed.at / "version.py").write_text(other)
    (bed.at / "stores.py").write_text(stores.read_text() + store)
    bed.within(name, "mount", "--bind", "/srv/version.py", str(version))
    bed.within(name, "mount", "--bind", "/srv/stores.py", str(stores))
    try:
        yield
    finally:
        bed.within(name, "umount", str(version))
        bed.within(name, "umount", str(stores))


def test_nodes_reach_each_other_and_each_tells_of_its_gpus(bed: Nodes) -> None:
    library = bed.at / "nvml" / "libnvidia-ml.so.1"
    (bed.at / "stub").rename(library)
    try:
        result = look(bed)
    finally:
        library.rename(bed.at / "stub")
    assert [n["state"] for n in result["nodes"]] == ["ok"] * 4
    assert {link["outcome"] for link in result["links"]} == {"reached"}
    # Twelve pairs, each on two networks, on a data port; and three on both at the meeting port.
    assert len(result["links"]) == 12 * 2 + 3 * 2
    said = {f["outcome"]: f["data"]["nodes"] for f in result["findings"] if f["probe"] == "gpu"}
    assert said["fine"] == ["node1"] and said["lost"] == ["node2"]
    assert said["driver-mismatch"] == ["node3"]
    assert "node1" in outcomes(result)["gpus-differ"]
    assert len({n["group"] for n in result["nodes"]}) == 4
    import jsonschema

    jsonschema.validate(result, json.loads((ROOT / "assets/schema/fleet.json").read_text()))
    assert bed.left() == ""


@pytest.mark.parametrize(
    ("rule", "how"), [("reject with tcp reset", "refused"),
                      ("reject with icmpx admin-prohibited", "unreachable")],
)  # fmt: skip
def test_a_filter_on_the_port(bed: Nodes, rule: str, how: str) -> None:
    with filtered(bed, "node1", f"tcp dport {PORT} {rule}"):
        result = look(bed)
    assert causes(result)[0] == "firewall-blocks-port"
    sentence = outcomes(result)["firewall-blocks-port"]
    assert "node[2-4]" in sentence and "node1" in sentence and how in sentence
    assert "firewall-blocks-data" not in outcomes(result)
    fix = result["fixes"][0]
    assert fix["badge"] == "holds" and f"--master-port {PORT}" not in fix["launch"]


def test_different_troubles_of_different_nodes_are_told_apart(bed: Nodes) -> None:
    """Three things at once: shut data ports, an unknown own name, another torch."""
    accept = f"tcp dport {{ 22, {PORT} }} accept"
    shut = ("ct state established,related accept", accept, "tcp dport 1-65535 drop")
    other = another_torch(bed, "node4")
    with filtered(bed, "node2", *shut), known_as(bed, "node3", None), other:
        result = look(bed)
    assert "2.1.0 on node4" in outcomes(result)["torch-differs"]
    assert {"firewall-blocks-data", "own-hostname-unresolvable"} <= set(causes(result))
    assert "of node2 (" in outcomes(result)["firewall-blocks-data"]
    assert [f["data"]["nodes"] for f in of(result, "own-name.unresolvable")] == [["node3"]]


def test_the_interface_that_is_named_is_missing_or_down_or_in_another_subnet(bed: Nodes) -> None:
    bed.on("node3", "ip", "link", "set", "eth1", "down")
    bed.on("node4", "ip", "addr", "del", "10.98.0.4/24", "dev", "eth1")
    bed.on("node4", "ip", "addr", "add", "10.97.0.4/24", "dev", "eth1")
    try:
        missing = look(bed, launch=("env", "GLOO_SOCKET_IFNAME=eth7", *launch()))
        result = look(bed, launch=("env", "GLOO_SOCKET_IFNAME=eth1", *launch()))
    finally:
        bed.on("node3", "ip", "link", "set", "eth1", "up")
        bed.on("node4", "ip", "addr", "del", "10.97.0.4/24", "dev", "eth1")
        bed.on("node4", "ip", "addr", "add", "10.98.0.4/24", "dev", "eth1")
    assert causes(missing)[0] == "interface-invalid"
    assert len(of(missing, "interface.missing")[0]["data"]["nodes"]) == 4
    assert [f["data"]["nodes"] for f in of(result, "interface.down")] == [["node3"]]
    wrong = outcomes(result)["interface-wrong"]
    assert "node4" in wrong and "10.97.0.4" in wrong and "eth0" in wrong
    assert {"interface-down", "interface-wrong"} <= set(causes(result))
    assert result["fixes"][0]["badge"] == "holds"
    assert "GLOO_SOCKET_IFNAME=eth0" in result["fixes"][0]["launch"]


def test_large_packets_are_lost(bed: Nodes) -> None:
    """Both ends believe in 9000 bytes; the way between them carries 1500."""
    for name in bed.names:
        bed.on(name, "ip", "link", "set", "eth0", "mtu", "9000")
    try:
        result = bed.fleet("-w", ALL, launch=launch())
    finally:
        for name in bed.names:
            bed.on(name, "ip", "link", "set", "eth0", "mtu", "1500")
    said = {(w["link"], w["outcome"]) for w in result["links"]}
    assert said == {("eth0", "large-lost"), ("eth1", "reached")}
    assert "(MTU)" in outcomes(result)["mtu-black-hole"]
    fix = result["fixes"][0]
    assert fix["badge"] == "ran" and "SOCKET_IFNAME=eth1" in fix["launch"], fix


def test_what_deepspeed_would_not_pass_on_is_said_and_not_written(bed: Nodes) -> None:
    (bed.at / "home" / "hosts").write_text("".join(f"{name} slots=1\n" for name in bed.names))
    for name in bed.names:
        bed.hosts(name, "127.0.1.1")
    try:
        launch = ("deepspeed", "--hostfile", "/srv/home/hosts", "--master_addr", "node1", "t.py")
        result = look(bed, launch=launch)
    finally:
        for name in bed.names:
            bed.hosts(name, bed.address(name))
    assert causes(result)[0] == "hostname-resolves-to-loopback", outcomes(result)
    fix = result["fixes"][0]
    assert fix["launch"] is None and "export GLOO_SOCKET_IFNAME=eth0" in fix["steps"][0]
    assert ".deepspeed_env" in fix["steps"][-1]


def test_a_master_that_one_node_takes_for_another_host(bed: Nodes) -> None:
    with known_as(bed, "node3", bed.address("node3"), node1="10.99.0.77"):
        result = look(bed)
    assert "node3 takes node1 for 10.99.0.77" in outcomes(result)["master-elsewhere"]
    assert "master-addr-not-rank0" in causes(result)


ROLES: dict[str, tuple[Callable[[int], str], str, str]] = {
    "node-rank-duplicated": (lambda n: launched(rank=max(0, n - 1) // 2), "node[1-2]", "rank 0"),
    "nnodes-disagree": (lambda n: launched(rank=n - 1, nnodes=3 if n == 2 else 4), "node2", "3"),
    "rdzv-id-differs": (lambda n: elastic("run2" if n == 4 else "run1"), "node4", "run2"),
    "port-differs-per-rank": (lambda n: launched(rank=n - 1, port=PORT + (n == 3)), "node3", "01"),
    "master-addr-not-rank0": (lambda n: launched(rank=n - 1, master=f"node{n}"), "node1", "node4"),
}


def launched(rank: int, nnodes: int = 4, port: int = PORT, master: str = "node1") -> str:
    return (f"{TORCHRUN} --nnodes {nnodes} --node-rank {rank} --master-addr {master} "
            f"--master-port {port} --nproc-per-node 1 train.py\n")  # fmt: skip


def elastic(name: str) -> str:
    return (f"{TORCHRUN} --nnodes 4 --rdzv-backend c10d --rdzv-endpoint node1:29400 "
            f"--rdzv-id {name} --nproc-per-node 1 train.py\n")  # fmt: skip


@pytest.mark.parametrize("cause", ROLES)
def test_what_the_nodes_were_told(bed: Nodes, cause: str) -> None:
    """Each node has its own copy of the launch script, under the same path."""
    text, node, word = ROLES[cause]
    for number, name in enumerate(bed.names, 1):
        (bed.at / f"{name}.job").write_text(text(number))
        done = bed.user("cp", f"/srv/{name}.job", "/run/tmp/job.sh", on=name)
        assert done.returncode == 0, done.stderr
    try:
        result = bed.fleet("-w", ALL, launch=("bash", "/run/tmp/job.sh"), on="node1")
    finally:
        for name in bed.names:
            bed.user("rm", "/run/tmp/job.sh", on=name)
    assert causes(result)[0] == cause, outcomes(result)
    said = " ".join(result["causes"][0]["for"])
    assert node in said and word in said
    fix = result["fixes"][0]
    assert fix["badge"] == "ran", fix
    ranks = [re.search(r"--node-rank (\d)", entry["launch"]) for entry in fix["nodes"]]
    if cause != "rdzv-id-differs":  # there the rendezvous gives them out
        assert sorted(rank[1] for rank in ranks if rank) == ["0", "1", "2", "3"], fix


def test_a_killed_controller_leaves_nothing_on_any_node(bed: Nodes) -> None:
    command = " ".join(ours("fleet", "-w", ALL, "--", *launch()))
    seen = "ssh node2 ls /run/tmp | grep -q ddp-assist"
    done = bed.user(
        "sh", "-c",
        f"{command} >/dev/null 2>&1 & pid=$!;"
        f" for i in $(seq 500); do {seen} && break; sleep 0.02; done;"
        f" {seen} || exit 3; kill -9 $pid;"
        f" for i in $(seq 400); do {seen} || exit 0; sleep 0.05; done; exit 4",
    )  # fmt: skip
    assert done.returncode == 0, {3: "it never began", 4: "folders are left"}
    assert bed.left() == ""


def test_a_node_that_dies_in_the_middle_costs_only_its_own_answers(bed: Nodes) -> None:
    """Its shell and its program are killed at once, when the folder is there."""
    command = " ".join(ours("fleet", "--json", "-w", ALL, "--no-trial"))
    kills = "until p=$(pgrep -u alice -f [r]un_module) && ls -d /run/tmp/ddp-assist-node-*/*/"
    kills += "ddp_assist >&2; do sleep 0.02; done; kill -9 $p"
    done = bed.user("sh", "-c", f"ssh node4 '{kills}' & {command}; wait")
    assert "/run/tmp/ddp-assist-node-" in done.stderr, "it was killed before it had a folder"
    result = json.loads(done.stdout)
    states = {n["node"]: n["state"] for n in result["nodes"]}
    assert states == {"node1": "ok", "node2": "ok", "node3": "ok", "node4": "died"}
    assert {w["from"] for w in result["links"]} >= {"node1", "node2", "node3"}
    assert bed.left() == ""


def test_no_more_than_what_was_given_is_asked_in_vain(bed: Nodes) -> None:
    done = bed.user(*ours("fleet", "-w", "node1"))
    assert "none tried" in done.stdout and done.returncode in (0, 5)
    done = bed.user(*ours("fleet", "--", "torchrun", "train.py"))
    assert done.returncode == 2 and "no nodes are named" in done.stderr


OTHER_STORE = """
class Foreign(TCPStore):
    def __init__(self, host, port, world, is_master, **more):
        if not is_master:
            raise DistNetworkError("Connection reset by peer")
        super().__init__(host, port, world, is_master, **more)
    __init__.__doc__ = TCPStore.__init__.__doc__
TCPStore = Foreign
"""
"""What was heard of torch 2.1.2 and 2.13.0 beside each other, whichever of them has the store."""


class TestTrials:
    def test_a_dropped_port_is_cured_and_proven(self, bed: Nodes, tmp_path: Path) -> None:
        out = "/srv/home/out"
        with filtered(bed, "node1", f"tcp dport {PORT} drop"):
            result = bed.fleet("-w", ALL, "--out", out, launch=launch())
        assert causes(result)[0] == "firewall-blocks-port"
        assert "silent" in outcomes(result)["firewall-blocks-port"]
        fix = result["fixes"][0]
        assert fix["badge"] == "ran", fix
        assert [n["node"] for n in fix["nodes"]] == list(bed.names)
        for rank, entry in enumerate(fix["nodes"]):
            assert f"--node-rank {rank} " in entry["launch"]
            text = (bed.at / "home" / "out" / f"launch-{entry['node']}.sh").read_text()
            assert entry["launch"] in text
        page = (bed.at / "home" / "out" / "report.html").read_text()
        assert "Who reaches whom" in page and "<svg" in page

    @pytest.mark.parametrize(("cause", "own"), [
        ("own-hostname-unresolvable", None), ("own-hostname-wrong-address", "10.99.0.77")],
    )  # fmt: skip
    def test_an_own_name_that_leads_nowhere(self, bed: Nodes, cause: str, own: str | None) -> None:
        with known_as(bed, "node2", own):
            result = bed.fleet("-w", "node[1-2]", launch=launch())
        assert causes(result) == [cause]
        assert "node2" in result["causes"][0]["for"][0]
        fix = result["fixes"][0]
        assert fix["badge"] == "ran" and "SOCKET_IFNAME=eth" in fix["launch"], fix

    @pytest.mark.parametrize("store", ["", OTHER_STORE], ids=["understood", "not understood"])
    def test_another_torch_is_blamed_where_it_parts_them(self, bed: Nodes, store: str) -> None:
        """Torch 2.12.1 and 2.13.0 meet. Of 2.1.2 and 2.13.0 the client hears a reset."""
        with another_torch(bed, "node3", store):
            result = bed.fleet("-w", "node[1-3]", launch=launch())
        if not store:
            assert "2.1.0 on node3" in outcomes(result)["torch-differs-and-meets"]
            assert causes(result) == [] and "trial-joined" in outcomes(result)
            return
        first = result["causes"][0]
        assert (first["id"], first["certainty"]) == ("store-version-mismatch", "certain")
        said = outcomes(result)["torch-parts-them"]
        assert said.startswith("node3 with torch 2.1.0 can't meet node[1-2] with 2.")

    def test_two_troubles_at_once_and_the_corrected_job_trains(self, bed: Nodes) -> None:
        """The own names are loopback, and the meeting port is shut; what `--out` holds is then
        started from the log-in host, and real ranks of a real torchrun meet."""
        (bed.at / "home" / "train.py").write_text(TRAIN)
        line = f"--nnodes 2 --node-rank 0 --master-addr node1 --master-port {PORT}"
        job = (TORCHRUN, *line.split(), "--nproc-per-node", "1", "/srv/home/train.py")
        for name in bed.names:
            bed.hosts(name, "127.0.1.1")
        try:
            with filtered(bed, "node1", f"tcp dport {PORT} drop"):
                result = bed.fleet("-w", "node[1-2]", "--out", "/srv/home/both", launch=job)
                done = bed.user("timeout", "200", "bash", "/srv/home/both/launch.sh")
        finally:
            for name in bed.names:
                bed.hosts(name, bed.address(name))
        both = {"hostname-resolves-to-loopback", "firewall-blocks-port"}
        assert causes(result)[0] in both and both <= set(causes(result))
        assert "trial-failed" in outcomes(result)
        fix = result["fixes"][0]
        assert fix["badge"] == "ran" and "SOCKET_IFNAME=eth0" in fix["launch"], fix
        assert f"--master-port {PORT}" not in fix["launch"]
        assert done.returncode == 0, done.stdout
        assert "node1: TRAINED 2.0" in done.stdout and "node2: TRAINED 2.0" in done.stdout
        left = bed.left()  # torchrun leaves folders of its own
        assert "ddp-assist" not in left and "run_module" not in left


    @pytest.mark.skipif(find_spec("accelerate") is None, reason="no accelerate here")
    @pytest.mark.parametrize("by", ["words", "files"])
    def test_one_configuration_for_both_nodes(self, bed: Nodes, by: str) -> None:
        """Both read the same file, so both are machine 0; each gets a file of its own."""
        (bed.at / "home" / "train.py").write_text(TRAIN)
        (bed.at / "home" / "two.yaml").write_text(
            "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nmachine_rank: 0\n"
            f"main_process_ip: node1\nmain_process_port: {PORT}\nnum_machines: 2\n"
            "num_processes: 2\nsame_network: true\n"
        )
        accelerate = str(Path(sys.executable).with_name("accelerate"))
        job = (accelerate, "launch", "--config_file", "/srv/home/two.yaml", "/srv/home/train.py")
        result = bed.fleet("-w", "node[1-2]", "--out", "/srv/home/acc", launch=job)
        assert causes(result)[0] == "node-rank-duplicated", outcomes(result)
        assert result["fixes"][0]["badge"] == "ran", result["fixes"][0]
        start = "bash /srv/home/acc/launch.sh"
        if by == "files":
            each = f"{accelerate} launch --config_file acc/accelerate-$n.yaml train.py"
            start = f"for n in node1 node2; do ssh $n cd /srv/home \\&\\& {each} & done; wait"
        done = bed.user("timeout", "200", "bash", "-c", start)
        assert done.stdout.count("TRAINED 2.0") == 2, done.stdout + done.stderr

    @pytest.mark.parametrize("by", [
        pytest.param("pdsh", marks=pytest.mark.needs("pdsh")), "no_ssh",
    ])  # fmt: skip
    def test_deepspeed_with_names_of_an_example(self, bed: Nodes, by: str) -> None:
        """The port is shut as well. Where DeepSpeed is started on each node, the names of its
        hostfile are only counted."""
        pytest.importorskip("deepspeed.launcher", reason="no wheel of deepspeed")
        home = bed.at / "home"
        (home / "train.py").write_text(TRAIN)
        (home / "hosts").write_text("# two\nworker-0 slots=1\nworker-1 slots=1\n")
        own = () if by == "pdsh" else ("--no_ssh", "--node_rank", "0", "--master_addr", "node1")
        program = str(Path(sys.executable).with_name("deepspeed"))
        job = (program, "--hostfile", "hosts", *own, "train.py")
        with filtered(bed, "node1", f"tcp dport {PORT} drop"):
            result = bed.fleet("-w", "node[1-2]", "--out", "/srv/home/ds", launch=job)
            done = bed.user("timeout", "200", "bash", "/srv/home/ds/launch.sh")
        logs_in = by == "pdsh"
        assert "firewall-blocks-port" in causes(result)
        assert ("hostfile-invalid" in causes(result)) == logs_in
        fix = result["fixes"][0]
        assert fix["badge"] == "ran" and "--master_port=" in fix["launch"], fix
        assert ["+node1 slots=1\n+node2 slots=1\n" in f["diff"] for f in fix["files"]] == (
            [True] if logs_in else []
        )
        assert done.stdout.count("TRAINED 2.0") == 2, done.stdout + done.stderr


TRAIN = """from datetime import timedelta
import torch
import torch.distributed as dist

dist.init_process_group("gloo", timeout=timedelta(seconds=120))
one = torch.ones(1)
dist.all_reduce(one)
print(f"TRAINED {one.item()}\\n", end="", flush=True)
dist.barrier()
dist.destroy_process_group()
"""

STARTS = """cd /srv/home
ssh node1 {torchrun} --nnodes=2 --node-rank=0 {common} &
ssh node2.cluster.local {torchrun} --nnodes={count} --node-rank={rank} {common} &
wait
"""
PLAIN = """export MASTER_ADDR={at} MASTER_PORT=29500
ssh node1 "MASTER_ADDR={at} MASTER_PORT=29500 RANK=0 WORLD_SIZE=2 {python} train.py" &
ssh node2 "MASTER_ADDR={at} MASTER_PORT=29500 RANK={rank} WORLD_SIZE=2 {python} train.py" &
wait
"""
COMMON = "--nproc-per-node=1 --master-addr=node1 --master-port=29500 train.py"
ONE_TEXT = {
    "node-rank-duplicated": (STARTS, {"rank": 0, "count": 2}, "--node-rank=1"),
    "nnodes-disagree": (STARTS, {"rank": 1, "count": 3}, "--nnodes=2"),
    "master-addr-unresolvable": (PLAIN, {"rank": 1, "at": "gpu-node-01"}, "10.99.0.1"),
    "host-unreachable": (PLAIN, {"rank": 1, "at": "10.99.0.77"}, "10.99.0.1"),
}


@pytest.mark.parametrize(("cause", "start_from"), [
    ("node-rank-duplicated", None), ("nnodes-disagree", "node2"),
    ("master-addr-unresolvable", "node1"), ("host-unreachable", "node1"),
    ("host-unreachable", "node2")])  # fmt: skip
def test_one_script_that_starts_two_nodes(bed: Nodes, cause: str, start_from: str | None) -> None:
    """From the log-in host, which has no part in the job, and from either node; the nodes are
    those of the launch, and `diagnose` asks them when it is told to."""
    text, values, cured = ONE_TEXT[cause]
    common = COMMON
    filled = text.format(torchrun=TORCHRUN, python=sys.executable, common=common, **values)
    (bed.at / "home" / "both.sh").write_text(filled)
    words = ("diagnose", "--fleet", "--no-trial", "--json", "--", "bash", "/srv/home/both.sh")
    done = bed.user(*ours(*words), on=start_from)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert [n["state"] for n in result["nodes"]] == ["ok", "ok"]
    assert causes(result)[0] == cause, result["causes"]
    fix = result["fixes"][0]
    assert fix["badge"] == "holds" and cured in fix["launch"], fix
    assert fix["launch"].count("ssh ") == 2


def test_without_a_yes_no_other_host_is_asked(bed: Nodes) -> None:
    (bed.at / "home" / "both.sh").write_text(
        STARTS.format(torchrun=TORCHRUN, rank=1, count=2, common=COMMON)
    )
    done = bed.user(*ours("diagnose", "--no-trial", "--json", "--", "bash", "/srv/home/both.sh"))
    assert "nodes" not in json.loads(done.stdout)
    assert "spans 2 hosts" in done.stderr and "--fleet" in done.stderr


def test_a_module_that_one_node_lacks() -> None:
    nodes = start(("node1", "node2"), env={"node1": "PYTHONPATH=/srv/extra"})
    try:
        info = nodes.at / "extra" / "Fast_Tokens-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: Fast-Tokens\nVersion: 1.2\n")
        (info / "top_level.txt").write_text("tok_fast\n")
        (info.parent / "tok_fast.py").write_text("raise SystemExit('never imported')\n")
        script = "import tok_fast\nimport torch.distributed as dist\ndist.init_process_group()\n"
        (nodes.at / "home" / "train.py").write_text(script)
        words = (TORCHRUN, "--nnodes", "2", "--node-rank", "0", "--master-addr", "node1",
                 "--nproc-per-node", "1", "train.py")  # fmt: skip
        result = nodes.fleet("-w", "node[1-2]", "--no-trial", launch=words)
        assert outcomes(result)["module-missing"] == (
            f"train.py:1 imports tok_fast, which {sys.executable} lacks on node2; node1 has it"
            " (Fast-Tokens 1.2)"
        )
        assert causes(result)[0] == "worker-crashed-first"
        assert "Fast-Tokens==1.2" in result["fixes"][0]["steps"][0]
        (nodes.at / "home" / "train.py").write_text(f"try:\n    {script[:15]}\nexcept: pass\n")
        assert "module-missing" not in outcomes(
            nodes.fleet("-w", "node[1-2]", "--no-trial", launch=words)
        )
    finally:
        nodes.close()


@pytest.mark.parametrize("said", [b"y\n", b"n\n", b"\x04"], ids=["yes", "no", "end of input"])
def test_on_a_terminal_the_user_is_asked(bed: Nodes, tmp_path: Path, said: bytes) -> None:
    (bed.at / "home" / "both.sh").write_text(
        STARTS.format(torchrun=TORCHRUN, rank=0, count=2, common=COMMON)
    )
    words = ours("diagnose", "--no-trial", "--", "bash", "/srv/home/both.sh")
    here = Terminal(tmp_path, command=[*bed.entered(), *as_alice(), *words])
    try:
        here.shows("The launch spans 2 hosts")
        here.shows("[y/N]")
        here.type(said)
        assert here.ended() in (1, 5)
        assert (b"LINKS" in here.bytes) == (said == b"y\n")
    finally:
        here.close()


def test_a_job_that_failed_is_diagnosed_on_all_its_nodes(bed: Nodes) -> None:
    """By `run` on one of them; what `--out` holds then trains."""
    (bed.at / "home" / "train.py").write_text(TRAIN)
    line = f"--nnodes 2 --node-rank 1 --master-addr node1 --master-port {PORT} --nproc-per-node 1"
    job = (TORCHRUN, *line.split(), "--rdzv-conf", "timeout=3", "/srv/home/train.py")
    words = ("run", "--json", "--fleet", "node[1-2]", "--out", "/srv/home/failed", "--", *job)
    with filtered(bed, "node1", f"tcp dport {PORT} drop"):
        asked = bed.user(*ours(*words), on="node2")
        done = bed.user("timeout", "200", "bash", "/srv/home/failed/launch.sh")
    assert asked.returncode == 1, asked.stderr
    result = json.loads(asked.stdout)
    assert causes(result)[0] == "firewall-blocks-port" and result["fixes"][0]["badge"] == "ran"
    assert done.stdout.count("TRAINED 2.0") == 2, done.stdout + done.stderr
