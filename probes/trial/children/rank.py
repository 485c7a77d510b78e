"""What one rank of a trial does, stage by stage, each told as a JSON line before and after.

Imported by worker.py, which forks ranks of it; run on its own where forking is not safe (`rank.py
PLAN RANK LISTENER EVENTS`), and by a real torchrun (`rank.py PLAN`), whose environment names it.
Standard library and torch 1.13 or newer, Python 3.8 or newer. Leaves by os._exit only.
"""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import hashlib
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any, Dict  # noqa: UP035 - Python 3.8

Plan = Dict[str, Any]  # noqa: UP006 - Python 3.8
HERE = os.path.dirname(os.path.abspath(__file__))
SIOCGIFADDR = 0x8915


class Refused(Exception):
    """A stage cannot pass, for a reason that we found ourselves; `kind` says which."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def neighbour(name: str) -> Any:
    """A file of this folder as a module, so that the folder need not stand on sys.path."""
    path = os.path.join(HERE, name + ".py")
    spec = importlib.util.spec_from_file_location(f"ddp_assist_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def root_of(problem: BaseException) -> BaseException:
    """The first error of a chain: what was raised later only says that this one was."""
    while True:
        earlier = problem.__cause__
        if earlier is None and not problem.__suppress_context__:
            earlier = problem.__context__
        if earlier is None:
            return problem
        problem = earlier


class Teller:
    """Writes events; a line is shorter than a pipe's atomic size, so ranks can share one pipe."""

    def __init__(self, fd: int, rank: int | None = None) -> None:
        self.fd = fd
        self.rank = rank

    def say(self, **event: Any) -> None:
        if self.rank is not None:
            event["rank"] = self.rank
        try:
            os.write(self.fd, (json.dumps(event) + "\n").encode()[-4096:])
        except OSError:
            os._exit(124)  # nobody listens any more

    def stage(self, name: str) -> Stage:
        return Stage(self, name)


class Stage:
    """`with teller.stage("connect"):` tells begin, end, time and the error, and lets it pass on."""

    def __init__(self, teller: Teller, name: str) -> None:
        self.teller = teller
        self.name = name
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> dict[str, Any]:
        self.began = time.monotonic()
        self.teller.say(event="stage", stage=self.name, state="begun", pid=os.getpid())
        return self.facts

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: object
    ) -> None:
        took = round(time.monotonic() - self.began, 6)
        if problem is None:
            self.teller.say(event="stage", stage=self.name, state="passed", seconds=took,
                            **self.facts)
            return
        first = root_of(problem)
        self.teller.say(event="stage", stage=self.name, state="failed", seconds=took,
                        kind=getattr(problem, "kind", ""), type=type(first).__name__,
                        errno=getattr(first, "errno", None), error=str(first)[:1500])


def remaining(plan: Plan, keep: float = 1.0) -> datetime.timedelta:
    """Seconds for torch to wait, less than ours, so that its own words are heard first."""
    return datetime.timedelta(seconds=max(1.0, plan["until"] - time.monotonic() - keep))


def interface_of(addr: str) -> str:
    """The interface that holds this IPv4 address, or "" where the kernel names none."""
    if addr.startswith("127."):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asker, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == addr:
                return name
    return ""


def say_where_to_listen(plan: Plan) -> None:
    """gloo and NCCL listen too: keep them on the interface of the chosen address.

    Where other hosts take part they choose for themselves, as in the job: a name of this host
    that leads the others astray must do so here as well."""
    if len(plan["ranks"]) < plan["world"] and not plan["interface"]:
        return
    env = os.environ
    name = plan["interface"] or interface_of(plan["ip"])
    if name:
        if plan["interface"] or not env.get("GLOO_SOCKET_IFNAME"):
            env["GLOO_SOCKET_IFNAME"] = name
        if plan["interface"] or not env.get("NCCL_SOCKET_IFNAME"):
            env["NCCL_SOCKET_IFNAME"] = "=" + name


def what_answers(addr: str, port: int, patience: float) -> Refused | None:
    """What a plain connection gets there: None is a store of torch 2.2 or newer."""
    try:
        link = socket.create_connection((addr, port), timeout=patience)
    except socket.gaierror as problem:
        return Refused("name-unknown", str(problem))
    except (ConnectionRefusedError, ConnectionResetError):
        return Refused("refused", f"connection refused: nothing listens on port {port}")
    except (socket.timeout, TimeoutError):  # noqa: UP041 - two things before Python 3.10
        return Refused("no-answer", f"no answer: packets to {addr} port {port} vanish")
    except OSError as problem:
        return Refused("unreachable", str(problem))
    with link:
        try:
            link.sendall(b"\x00\xce\xf7\x85\x3c\x07")
            answer = link.recv(64)
        except OSError:
            answer = b""
    if len(answer) == 8 and 0 <= struct.unpack("<q", answer)[0] < 1 << 20:
        return None
    if answer.startswith(b"HTTP/") or speaks_http(addr, port):
        return Refused("http", f"a web server (HTTP) answers on port {port}, no store")
    return Refused("not-a-store", f"port {port} accepts connections, but no store of torch 2.2 or "
                   "newer answers (another program, or an older torch)")


def speaks_http(addr: str, port: int) -> bool:
    try:
        with socket.create_connection((addr, port), timeout=1.0) as link:
            link.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return link.recv(16).startswith(b"HTTP/")
    except OSError:
        return False


def torch_version(torch: Any) -> tuple[int, ...]:
    """2.13.0+cpu is (2, 13)."""
    return tuple(int(part) for part in str(torch.__version__).split(".")[:2])


def connect(dist: Any, version: Any, plan: Plan, hosts: bool, listener: int | None) -> Any:
    """The store, through our own listening socket where this rank is the one that hosts it.

    A torch that cannot be given one hosts it without."""
    if plan["init"] == "file":
        return dist.FileStore(plan["file"], plan["world"])
    wait = remaining(plan, 3.0) / 2.2  # torch tries for up to twice the time it is given
    more: dict[str, Any] = {
        "wait_for_workers": False, "timeout": max(wait, datetime.timedelta(seconds=1)),
    }  # fmt: skip
    if hosts:
        if listener is not None:
            more["master_listen_fd"] = listener
        return dist.TCPStore(plan["addr"], plan["port"], plan["world"], True, **more)
    if 0 not in plan["ranks"] and version >= (2, 2):
        # torch waits without end for a web server or a silent program to speak its language.
        patience = remaining(plan, 3.0).total_seconds() / 3
        seen = what_answers(plan["addr"], plan["port"], patience)
        if seen is not None and seen.kind != "refused":  # who is refused may only be early
            raise seen
    try:
        return dist.TCPStore(plan["addr"], plan["port"], plan["world"], False, **more)
    except (RuntimeError, ValueError, OSError) as problem:  # before 2.0 a TimeoutError
        seen = what_answers(plan["addr"], plan["port"], 1.0) or Refused(
            "other-store", "a store answers there, but not the way this torch expects")
        raise Refused(seen.kind, f"{seen} (torch: {str(problem)[:300]})") from None


def proof(plan: Plan, rank: int) -> str:
    """What only a rank of this trial can write: the secret never goes through the store."""
    return hashlib.sha256(f"{plan['secret']}:{rank}".encode()).hexdigest()


def meet(store: Any, plan: Plan, rank: int) -> None:
    """All ranks are here when each has left its proof; says which have not."""
    store.set(f"here/{rank}", proof(plan, rank))
    wanted = [f"here/{r}" for r in range(plan["world"])]
    try:
        store.wait(wanted, remaining(plan))
    except RuntimeError as problem:
        who = "not all ranks came"  # before 2.0 a store can't be asked which
        if hasattr(store, "check"):
            absent = [r for r in range(plan["world"]) if not present(store, wanted[r])]
            who = f"ranks {absent} did not come"
        raise Refused("absent", f"{who} "
                      f"(torch: {str(problem).partition(', keys:')[0][:200]})") from None
    for other, key in enumerate(wanted):
        if store.get(key).decode("utf-8", "replace") != proof(plan, other):
            raise Refused("stranger", f"somebody else wrote rank {other}'s key into the store")


def present(store: Any, key: str) -> bool:
    try:
        return bool(store.check([key]))
    except RuntimeError:
        return False


class Cpu:
    """Where gloo reduces."""

    name = "cpu"
    options: dict[str, Any] = {}

    def after(self) -> dict[str, Any]:
        return {}


class Gpu:
    """Where NCCL reduces, taken in a stage of its own."""

    def __init__(self, torch: Any, plan: Plan, rank: int, index: int, teller: Teller) -> None:
        self.torch, self.index = torch, index
        self.gpu = neighbour("gpu")
        self.gpu.quieten(plan)
        with teller.stage("backend") as facts:
            facts.update(self.gpu.take(torch, Refused, plan, rank, index))
            self.free = facts["free_mib"]
        self.name = f"cuda:{index}"
        self.options = self.gpu.group_options(torch, torch_version(torch), index)

    def after(self) -> dict[str, Any]:
        """Waits for what runs there, and says what the trial took of its memory."""
        self.torch.cuda.synchronize()
        free, _ = self.gpu.memory(self.torch, self.index)
        return {"took_mib": max(0, self.free - free // self.gpu.MIB)}


def reduce_once(
    torch: Any, dist: Any, world: int, rank: int, device: Any, facts: dict[str, Any]
) -> None:
    tensor = torch.full((8,), float(rank + 1), device=device.name)
    dist.all_reduce(tensor)
    facts.update(device.after())
    got, right = tensor.tolist(), world * (world + 1) / 2
    if got != [right] * 8:
        raise Refused("wrong-sum", f"the sum is {got[0]} and should be {right}")


def play(plan: Plan, rank: int, listener: int | None, teller: Teller) -> None:
    """All stages of this rank; raises at the first that fails, which has been told by then."""
    os.environ.update(plan["env"])
    for name in plan["unset"]:
        os.environ.pop(name, None)
    say_where_to_listen(plan)
    import torch
    import torch.distributed

    dist: Any = torch.distributed
    device: Any = Cpu()
    if plan["backend"] == "nccl":
        device = Gpu(torch, plan, rank, plan["gpus"][plan["ranks"].index(rank)], teller)
    host = rank == 0 and plan["init"] != "file"
    with teller.stage("connect"):
        raw = connect(dist, torch_version(torch), plan, host, listener)
        store = dist.PrefixStore(plan["key"], raw)
    try:
        with teller.stage("rendezvous"):
            meet(store, plan, rank)
        if plan["backend"] != "store":
            with teller.stage("group"):
                inner = dist.PrefixStore("group", store)
                dist.init_process_group(plan["backend"], store=inner, rank=rank,
                                        world_size=plan["world"], timeout=remaining(plan),
                                        **device.options)
            with teller.stage("all-reduce") as facts:
                reduce_once(torch, dist, plan["world"], rank, device, facts)
        with teller.stage("clean-up"):
            leave_together(store, plan, rank, host)
            if plan["backend"] == "nccl":  # it shares memory; gloo's sockets end with the process
                dist.destroy_process_group()
    except Exception:
        part(store, plan, rank, host)
        raise


def part(store: Any, plan: Plan, rank: int, host: bool) -> None:
    """After a failure the store stays a moment, so that the others fail for their own reasons."""
    try:
        store.set(f"over/{rank}", "")
        if host:
            store.wait([f"over/{r}" for r in plan["ranks"]], datetime.timedelta(seconds=1))
    except RuntimeError:
        return  # nobody is there to part from


def leave_together(store: Any, plan: Plan, rank: int, host: bool) -> None:
    """Who leaves early would look like a failure to the others; the store's host leaves last."""
    everyone = range(plan["world"])
    store.set(f"done/{rank}", "")
    store.wait([f"done/{r}" for r in everyone], remaining(plan))
    store.set(f"gone/{rank}", "")
    if host:
        store.wait([f"gone/{r}" for r in everyone], remaining(plan))


def arm(plan: Plan) -> None:
    """The kernel ends this rank a second after the deadline, whatever it is busy with."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(plan["until"] - time.monotonic()) + 2)


def follow_lifeline(plan: Plan) -> None:
    """Under torchrun our parent is its agent: end with it, and when standard input closes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    arm(plan)

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, daemon=True).start()


def play_under_torchrun(plan: Plan, rank: int, teller: Teller) -> None:
    """The launcher's own environment says who we are and where to meet: env:// as users have it."""
    with teller.stage("torch-import"):
        import torch
        import torch.distributed
    dist: Any = torch.distributed
    world = int(os.environ["WORLD_SIZE"])
    device: Any = Cpu()
    if plan["backend"] == "nccl":
        device = Gpu(torch, plan, rank, int(os.environ["LOCAL_RANK"]), teller)
    with teller.stage("group"):
        dist.init_process_group(plan["backend"], timeout=remaining(plan), **device.options)
    with teller.stage("all-reduce") as facts:
        reduce_once(torch, dist, world, rank, device, facts)
    with teller.stage("clean-up"):
        dist.destroy_process_group()


def main(argv: list[str]) -> None:
    with open(argv[0]) as source:
        plan = json.load(source)
    if len(argv) == 1:
        follow_lifeline(plan)
        events = os.open(plan["events"], os.O_WRONLY)
        rank = int(os.environ["RANK"])
        play_under_torchrun(plan, rank, Teller(events, rank))
    else:
        arm(plan)
        listener = int(argv[2])
        play(plan, int(argv[1]), None if listener < 0 else listener,
             Teller(int(argv[3]), int(argv[1])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as problem:  # noqa: BLE001 - told as the failure of a stage, and it ends here
        sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
