"""Every stage's failure, produced for real, is named with the right stage and the right ranks."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.trial.picture import render
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import STAGES, SpecError, Stage, TrialResult, TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, for a namespace or a limit")


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmTorch]:
    """Trials fork from one torch, which is quicker, and is itself what is tested."""
    with WarmTorch() as torch:
        assert torch.run_trial(TrialSpec(backend="store", deadline=60)).joined  # it is warm now
        yield torch


def cold(**asked: Any) -> TrialResult:
    """A trial in a process of its own, with time to import torch on a machine that is busy."""
    return run_trial(TrialSpec(**{"deadline": 60, **asked}))


# -- what is asked of the interpreter ------------------------------------------------------------


def test_interpreter_does_not_exist() -> None:
    result = cold(python="/no/such/python")
    assert (result.outcome, result.kind) == ("python", "not-started")
    assert "does not exist" in result.sentence and "--python" in result.sentence


@pytest.mark.parametrize("program", ["/bin/true", "/bin/cat", "/bin/ls"])
def test_interpreter_is_not_python(program: str) -> None:
    result = cold(python=program, deadline=5)
    assert (result.outcome, result.kind) == ("python", "not-python")


def test_interpreter_is_no_program(tmp_path: Path) -> None:
    text = tmp_path / "python"
    text.write_text("not a program")
    text.chmod(0o755)
    assert cold(python=str(text)).outcome == "python"


def test_interpreter_has_no_torch(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True
    )
    result = cold(python=str(tmp_path / "bare" / "bin" / "python"))
    assert (result.outcome, result.kind) == ("torch-import", "no-torch")
    assert "install torch" in result.sentence


def test_torch_is_broken_and_its_first_error_is_told(tmp_path: Path) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(
        "try:\n"
        "    raise OSError('libcudnn.so.9: cannot open shared object file: No such file')\n"
        "except OSError as first:\n"
        "    raise ImportError('torch could not be imported') from first\n"
    )
    result = cold(env={"PYTHONPATH": str(tmp_path)})
    assert (result.outcome, result.kind) == ("torch-import", "library-missing")
    assert "libcudnn.so.9" in result.sentence


def test_foreign_words_reach_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import sys\n"
        "sys.stderr.write('\\x1b[2J log')\n"
        "raise ImportError('\\x1b]52;c;eA==\\x07 [rank0] gone')\n"
    )
    result = cold(env={"PYTHONPATH": str(tmp_path)})
    assert result.outcome == "torch-import" and "[rank0] gone" in result.sentence
    shown = render(result) + result.log + json.dumps(result.as_json(), ensure_ascii=False)
    assert not [c for c in shown if ord(c) < 32 and c != "\n"]


def test_the_working_directory_is_not_imported_from(tmp_path: Path) -> None:
    for name in ("torch", "json", "socket"):
        text = f"open({str(tmp_path / 'marker')!r}, 'w')\nraise ImportError('hostile')\n"
        (tmp_path / f"{name}.py").write_text(text)
    assert cold(cwd=str(tmp_path), backend="store").joined
    assert not (tmp_path / "marker").exists()


# -- the address and the port --------------------------------------------------------------------


def test_name_is_unknown(warm: WarmTorch) -> None:
    result = warm.run_trial(TrialSpec(addr="no-such-host.invalid"))
    assert (result.outcome, result.kind, result.missing) == ("name", "name-unknown", ())


def test_address_is_not_ours(warm: WarmTorch) -> None:
    result = warm.run_trial(TrialSpec(addr="192.0.2.1"))
    assert (result.outcome, result.kind) == ("listen", "not-ours")
    assert "no address of this host" in result.sentence


def test_port_was_taken_between_choice_and_bind(warm: WarmTorch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        result = warm.run_trial(TrialSpec(port=port))
    assert (result.outcome, result.kind) == ("listen", "taken")
    assert f"port {port}" in result.sentence


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something else on a port of loopback: each connection is handed to `answer`."""
    server = socket.create_server(("127.0.0.1", 0))
    links: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                link, _ = server.accept()
                links.append(link)
                answer(link)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
        for link in links:
            link.close()


def joining(port: int, deadline: float = 30.0, **more: Any) -> TrialSpec:
    """Rank 1 of two, whose store is elsewhere."""
    return TrialSpec(port=port, ranks=(1,), key="0" * 32, deadline=deadline, **more)


def test_nobody_listens(warm: WarmTorch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = warm.run_trial(joining(port, deadline=6))
    assert (result.outcome, result.kind, result.missing) == ("connect", "refused", (1,))


def test_port_speaks_http(warm: WarmTorch) -> None:
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        result = warm.run_trial(joining(server.server_port))
        server.shutdown()
    assert (result.outcome, result.kind) == ("connect", "http")


def test_store_of_another_version(warm: WarmTorch) -> None:
    def count_keys_only(link: socket.socket) -> None:
        if link.recv(64).endswith(b"\x07"):  # what stores of 2.2 to 2.4 know, unlike a ping
            link.sendall(struct.pack("<q", 3))
        else:
            link.close()

    with answering(count_keys_only) as port:
        result = warm.run_trial(joining(port))
    assert (result.outcome, result.kind) == ("connect", "other-store")


def test_a_listener_that_is_no_store(warm: WarmTorch) -> None:
    with answering(lambda link: link.close()) as port:
        result = warm.run_trial(joining(port))
    assert (result.outcome, result.kind) == ("connect", "not-a-store")


IN_NAMESPACE = """
import json, subprocess
from ddp_assist.probes.trial.picture import render
from ddp_assist.probes.trial.run import TrialSpec, run_trial
for line in {commands!r}:
    subprocess.run(line.split(), check=True)
if __name__ == "__main__":
    result = run_trial(TrialSpec(**{{"deadline": 60, **{spec!r}}}))
    print(json.dumps([result.outcome, result.kind, result.missing, result.sentence]))
"""


def in_namespace(lab: Any, spec: dict[str, Any], *commands: str) -> list[Any]:
    """A trial in a network of its own."""
    source = IN_NAMESPACE.format(commands=("ip link set lo up", *commands), spec=spec)
    done = lab.run_python(source, "unshare", "--net")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


# A cable whose other end nobody listens to; the neighbour's address leads into the void.
CABLE = ("ip link add d0 type veth peer name d1", "ip addr add 10.9.0.1/24 dev d0")
UP = ("ip link set d0 up", "ip link set d1 up")
VOID = "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:01 dev d0"


@needs_root
def test_blackholed_address(lab: Any) -> None:
    spec = {"addr": "10.9.0.2", "port": 29500, "ranks": (1,), "key": "k", "deadline": 20}
    outcome, kind, missing, _ = in_namespace(lab, spec, *CABLE, *UP, VOID)
    assert (outcome, kind, missing) == ("connect", "no-answer", [1])


@needs_root
def test_interface_is_down(lab: Any) -> None:
    spec = {"addr": "10.9.0.9", "port": 29500, "ranks": (1,), "key": "k"}
    outcome, kind, _, _ = in_namespace(lab, spec, *CABLE)
    assert (outcome, kind) == ("connect", "unreachable")


@needs_root
def test_interface_has_no_address(lab: Any) -> None:
    outcome, kind, _, sentence = in_namespace(lab, {"interface": "d0"}, CABLE[0])
    assert (outcome, kind) == ("group", "interface-missing"), sentence


@needs_root
def test_the_trial_stays_on_the_interface_of_its_address(lab: Any) -> None:
    outcome, *_ = in_namespace(lab, {"addr": "10.9.0.1"}, *CABLE, *UP)
    assert outcome == "joined"


def test_interface_does_not_exist(warm: WarmTorch) -> None:
    result = warm.run_trial(TrialSpec(interface="nope0"))
    assert (result.outcome, result.kind, result.missing) == ("group", "interface-missing", ())
    assert "ip -br addr" in result.sentence


# -- ranks that are missing, or die --------------------------------------------------------------


def test_a_rank_is_missing(warm: WarmTorch) -> None:
    result = warm.run_trial(TrialSpec(nproc=4, ranks=(0, 1, 3), deadline=3))
    assert (result.outcome, result.kind, result.missing) == ("rendezvous", "absent", (2,))


def test_a_rank_dies_before_the_rendezvous_is_complete(warm: WarmTorch) -> None:
    def kill(stage: Stage) -> None:
        if (stage.stage, stage.rank, stage.state) == ("rendezvous", 1, "begun"):
            assert stage.pid
            os.kill(stage.pid, signal.SIGKILL)

    # Rank 3 never comes, so rank 1 is certain to wait when it is killed.
    result = warm.run_trial(TrialSpec(nproc=4, ranks=(0, 1, 2), deadline=20), kill)
    assert (result.outcome, result.kind, result.missing) == ("rendezvous", "ended", (1,))
    assert "SIGKILL" in result.sentence


OTHER_RANK = """
import hashlib
ends_after = sys.argv[1]
raw = dist.TCPStore("127.0.0.1", port, 2, False, wait_for_workers=False)
store = dist.PrefixStore("ddp-assist/" + "0" * 32, raw)
store.set("here/1", hashlib.sha256(("0" * 32 + ":1").encode()).hexdigest())
store.wait(["here/0"])
if ends_after == "rendezvous":
    os._exit(9)
dist.init_process_group("gloo", store=dist.PrefixStore("group", store), rank=1, world_size=2)
if ends_after == "group":
    os._exit(9)
tensor = torch.full((8,), 5.0)  # a rank that computes something else
dist.all_reduce(tensor)
store.set("done/1", ""); store.wait(["done/0"])
"""


@pytest.mark.parametrize(
    ("ends_after", "outcome", "missing"),
    [("rendezvous", "group", (1,)), ("group", "all-reduce", (1,)), ("never", "all-reduce", (0,))],
)
def test_a_rank_of_another_host(
    warm: WarmTorch, prepare: Any, ends_after: str, outcome: str, missing: tuple[int, ...]
) -> None:
    """Rank 1 is not ours: it ends after a stage, or takes part with wrong numbers."""
    other = prepare(OTHER_RANK, ends_after)

    def start_other(stage: Stage) -> None:
        if stage.stage == "listen" and stage.state == "passed":
            other.go(stage.facts["port"])

    spec = TrialSpec(nproc=2, ranks=(0,), key="0" * 32, deadline=6)
    result = warm.run_trial(spec, start_other)
    assert (result.outcome, result.missing) == (outcome, missing), result.sentence
    if ends_after == "never":
        assert result.kind == "wrong-sum"


# Writes what a trial of any other making would look for.
STRANGER = """
store = dist.TCPStore("127.0.0.1", port, None, False, wait_for_workers=False)
for key in ("init/", "here/0", "here/1", "default_pg/0//cpu//0/0", "group/0", "done/0"):
    store.set(key, "stranger")
"""


def test_a_strangers_keys_do_not_change_the_verdict(warm: WarmTorch, prepare: Any) -> None:
    """They are there before the second rank comes."""
    stranger = prepare(STRANGER)
    joined: list[str] = []
    ports: list[int] = []

    def join_late() -> None:
        spec = TrialSpec(port=ports[0], ranks=(1,), key="0" * 32, deadline=50)
        joined.append(run_trial(spec).outcome)

    late = threading.Thread(target=join_late)

    def intrude(stage: Stage) -> None:
        if (stage.stage, stage.state) == ("listen", "passed"):
            ports.append(stage.facts["port"])
        if (stage.stage, stage.rank, stage.state) == ("rendezvous", 0, "begun"):
            stranger.go(ports[0])
            assert stranger.process.wait(40) == 0
            late.start()

    result = warm.run_trial(TrialSpec(ranks=(0,), key="0" * 32, deadline=50), intrude)
    late.join()
    assert (result.outcome, joined) == ("joined", ["joined"])


FORGER = """
store = dist.TCPStore("127.0.0.1", port, None, False, wait_for_workers=False)
store.set("ddp-assist/" + "0" * 32 + "/here/1", "forged")
"""


def test_a_forged_proof_is_noticed(warm: WarmTorch, prepare: Any) -> None:
    """Somebody who has listed the keys can spoil a trial, but never make it look joined."""
    forger = prepare(FORGER)

    def intrude(stage: Stage) -> None:
        if stage.stage == "listen" and stage.state == "passed":
            forger.go(stage.facts["port"])

    result = warm.run_trial(TrialSpec(ranks=(0,), key="0" * 32, deadline=20), intrude)
    assert (result.outcome, result.kind) == ("rendezvous", "stranger")


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"nproc": 0}, "1 to 64"),
        ({"nproc": 10_000}, "1 to 64"),
        ({"port": 70_000}, "1 to 65535"),
        ({"deadline": 600.0}, "up to 60 s"),
        ({"backend": "mpi"}, "gloo, nccl or store"),
        ({"addr": ""}, "127.0.0.1"),
        ({"ranks": (1,)}, "rank 0"),
        ({"ranks": (0, 7)}, "between 0 and 1"),
        ({"init": "magic"}, "env, tcp or file"),
    ],
)
def test_what_cannot_be_tried_says_what_can(asked: dict[str, Any], advice: str) -> None:
    with pytest.raises(SpecError, match=advice):
        TrialSpec(**asked)


# An ordinary user, for whom the limit holds, who may yet read where this interpreter lies.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
          "--inh-caps=+dac_override", "--ambient-caps=+dac_override")  # fmt: skip
AS_NOBODY = """
import json, resource
from ddp_assist.probes.trial.picture import render
from ddp_assist.probes.trial.run import TrialSpec, run_trial
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))
    result = run_trial(TrialSpec(deadline=60))
    print(json.dumps([result.outcome, result.kind, result.sentence]))
"""


@needs_root
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_further_process_may_be_started(lab: Any, limit: int) -> None:
    """At 1 the guard cannot start, at 2 its worker, at 3 the ranks."""
    if any(Path(f"/proc/{p}").stat().st_uid == 65534 for p in os.listdir("/proc") if p.isdigit()):
        pytest.skip("user 65534 runs processes here, so the limit would not mean what it says")
    with tempfile.TemporaryDirectory(dir="/tmp") as tmp:  # pytest's own is closed to others
        os.chmod(tmp, 0o777)
        done = lab.run_python(AS_NOBODY.format(limit=limit), *NOBODY, TMPDIR=tmp)
        assert os.listdir(tmp) == []
    assert done.returncode == 0, done.stderr
    outcome, _, sentence = json.loads(done.stdout)
    assert outcome == "python" and "process" in sentence


FULL = """
import json
from ddp_assist.probes.trial.picture import render
from ddp_assist.probes.trial.run import TrialSpec, run_trial
if __name__ == "__main__":
    result = run_trial(TrialSpec(deadline=60))
    print(json.dumps([result.outcome, result.kind, result.sentence]))
"""


@needs_root
def test_the_temporary_directory_is_full(lab: Any, private_tmp: Path) -> None:
    mount = f"mount -t tmpfs -o nr_inodes=2 none {private_tmp} && exec \"$0\" \"$@\""
    done = lab.run_python(FULL, "unshare", "--mount", "sh", "-c", mount)
    assert done.returncode == 0, done.stderr
    outcome, _, sentence = json.loads(done.stdout)
    assert outcome == "python" and "No space left" in sentence


def test_a_trial_ends_at_its_deadline(warm: WarmTorch) -> None:
    """Every rank is frozen as it begins, so that nothing but the deadline can end them."""

    def freeze(stage: Stage) -> None:
        if stage.stage == "rendezvous" and stage.state == "begun" and stage.pid:
            os.kill(stage.pid, signal.SIGSTOP)

    result = warm.run_trial(TrialSpec(nproc=3, ranks=(0, 1), deadline=2), freeze)
    assert result.outcome in ("connect", "rendezvous")  # the store was frozen with rank 0
    assert result.kind == "left"
    assert warm.run_trial(TrialSpec()).joined


# -- what goes well ------------------------------------------------------------------------------


def test_cold_trial_joins_and_tells_every_stage() -> None:
    seen: list[Stage] = []
    result = run_trial(TrialSpec(deadline=60), seen.append)
    assert result.joined and result.port and result.address == "127.0.0.1"
    assert [s.error for s in result.stages] == [None] * len(result.stages)
    assert {s.stage for s in result.stages} == set(STAGES)
    assert {s.rank for s in result.stages if s.stage == "all-reduce"} == {0, 1}
    assert ("connect", 1, "begun") in [(s.stage, s.rank, s.state) for s in seen]


@pytest.mark.parametrize("spec", [
    {"nproc": 1}, {"nproc": 5}, {"init": "file"}, {"init": "tcp"}, {"backend": "store"},
    {"addr": "localhost"}, {"addr": "127.0.0.3"}, {"backend": "store", "init": "file"},
])  # fmt: skip
def test_kinds_of_trials_join(warm: WarmTorch, spec: dict[str, Any]) -> None:
    result = warm.run_trial(TrialSpec(**spec))
    assert result.joined, result.sentence


def test_legacy_store_takes_our_socket_too() -> None:
    result = cold(env={"USE_LIBUV": "0"}, backend="store")
    assert result.joined, result.sentence


def test_where_forking_is_not_safe_every_rank_is_a_fresh_process() -> None:
    """A thread pool that starts on import is what makes it unsafe."""
    shown = "import os, numpy; print(len(os.listdir('/proc/self/task')))"
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", shown], env=env, capture_output=True, text=True)
    if done.returncode != 0 or int(done.stdout) < 2:
        pytest.skip("numpy starts no threads here")
    result = cold(env={"OPENBLAS_NUM_THREADS": "2"})
    assert result.joined, result.sentence
    assert "fresh process" in result.notes[0]


def test_a_real_torchrun_joins() -> None:
    options = ("--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d",
               "--rdzv-endpoint=127.0.0.1:0")  # fmt: skip
    result = cold(torchrun=options)
    assert result.joined, result.sentence
    assert {s.rank for s in result.stages if s.stage == "all-reduce"} == {0, 1}


def test_a_real_torchrun_with_a_typing_error() -> None:
    result = cold(torchrun=("--nproc-per-nod=two",), deadline=20)
    assert (result.outcome, result.kind) == ("rendezvous", "no-rank")
    assert "nproc" in result.sentence


def test_nccl_without_it_says_why(warm: WarmTorch) -> None:
    result = warm.run_trial(TrialSpec(backend="nccl", nproc=1))
    if result.joined:
        pytest.skip("there is a GPU here, and NCCL works")
    assert result.outcome == "backend"
    assert result.kind in ("no-nccl", "no-gpu", "gpu-full") and "torch" in result.sentence
