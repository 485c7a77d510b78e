"""Who has joined, read out of the job's own store: one connection, questions only, on request.

Nothing here can change a store: the operations sent are GETNUMKEYS, CHECK, GET of a key that is
there, and LIST_KEYS. Each request is whole in one send, because half of one stalls the old backend
for all ranks.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddp_assist.probes.host.processes import read
from ddp_assist.probes.jobs.find import in_group
from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.jobs.ranks import Job
from ddp_assist.probes.jobs.scene import Scene, see
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network.store import COUNT_KEYS, VALIDATE
from ddp_assist.probes.text import clean

GET, CHECK, LIST_KEYS = b"\x03", b"\x05", b"\x11"
LISTS_FROM = (2, 10)
JOINED = "init/"
KEY_OF_RANK = re.compile(r"default_pg/0//cpu//\d+/(\d{1,7})$")
KEY_OF_NODE = re.compile(r"/torchelastic/role_info/\d+$")
ANSWERS_WITHIN = 1.5
MOST_RANKS = 4096
MOST_BYTES = 16 << 20
SLOW_NAMES = 0.5
"""The store looks up the name of whoever connects, and serves nobody meanwhile."""


class NotAnswered(OSError):
    """The store said nothing that makes sense; its words are no proof of anything."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a store knows of those who came."""

    keys: int
    count: int | None
    """Clients that were built with a world size: ranks, and agents of a static rendezvous."""
    published: frozenset[int]
    """Ranks whose gloo address is there."""
    nodes: int = 0
    """Agents of a static rendezvous, which count as clients too."""


def peek(host: str, port: int, world: int, lists: bool) -> Joined:
    """One connection. `lists`: the store's torch is new enough to list its keys."""
    with _store(host, port) as (link, ends, keys):
        names = _listed(link, ends) if lists else _checked(link, world, ends)
        count = _number(link, ends) if JOINED in names else None
    found = (KEY_OF_RANK.search(name) for name in names)
    nodes = sum(1 for name in names if KEY_OF_NODE.search(name))
    return Joined(keys, count, frozenset(int(m[1]) for m in found if m), nodes)


def _take(link: socket.socket, size: int, ends: float) -> bytes:
    data = b""
    while len(data) < size:
        link.settimeout(max(0.05, ends - time.monotonic()))
        part = link.recv(min(size - len(data), 1 << 16))
        if not part or time.monotonic() > ends:
            raise NotAnswered("it closed the connection, or took too long")
        data += part
    return data


def _text(word: str) -> bytes:
    raw = word.encode()
    return struct.pack("<Q", len(raw)) + raw


def _listed(link: socket.socket, ends: float) -> set[str]:
    link.sendall(LIST_KEYS)
    (count,) = struct.unpack("<q", _take(link, 8, ends))
    if not 0 <= count < 1 << 20:
        raise NotAnswered("its list of keys makes no sense")
    names: set[str] = set()
    size = 0
    for _ in range(count):
        (length,) = struct.unpack("<Q", _take(link, 8, ends))
        size += length
        if length > 1 << 16 or size > MOST_BYTES:
            raise NotAnswered("its list of keys is too long")
        names.add(_take(link, length, ends).decode("utf-8", "replace"))
    return names


def _checked(link: socket.socket, world: int, ends: float) -> set[str]:
    """Which of the keys that ranks write are there: one CHECK each, all in one send."""
    ranks = range(min(world, MOST_RANKS))
    wanted = [JOINED, *(f"/default_pg/0//cpu//0/{n}" for n in ranks)]
    wanted += [f"/none/torchelastic/role_info/{n}" for n in range(min(world, 256))]
    return _there(link, wanted, ends)


def _there(link: socket.socket, wanted: Sequence[str], ends: float) -> set[str]:
    link.sendall(b"".join(CHECK + struct.pack("<Q", 1) + _text(name) for name in wanted))
    answers = _take(link, len(wanted), ends)
    return {name for name, absent in zip(wanted, answers, strict=True) if not absent}


def values(host: str, port: int, wanted: Sequence[str]) -> dict[str, str]:
    """What those of these keys hold that are there; a short text each."""
    found: dict[str, str] = {}
    with _store(host, port) as (link, ends, _):
        for name in sorted(_there(link, wanted, ends)):
            link.sendall(GET + _text(name))
            (length,) = struct.unpack("<Q", _take(link, 8, ends))
            if length > 1 << 12:
                raise NotAnswered("a value is too long")
            found[name] = _take(link, length, ends).decode("utf-8", "replace")
    return found


@contextlib.contextmanager
def _store(host: str, port: int) -> Iterator[tuple[socket.socket, float, int]]:
    """A connection to what answers as a store does, until when it serves, and its count of keys."""
    try:
        with socket.create_connection((host, port), timeout=ANSWERS_WITHIN) as link:
            ends = time.monotonic() + 2 * ANSWERS_WITHIN
            link.sendall(VALIDATE + COUNT_KEYS)
            (keys,) = struct.unpack("<q", _take(link, 8, ends))
            if not 0 <= keys < 1 << 32:
                raise NotAnswered("it is no torch store")
            yield link, ends, keys
    except struct.error as why:
        raise NotAnswered(str(why)) from why


def _number(link: socket.socket, ends: float) -> int | None:
    link.sendall(GET + _text(JOINED))
    (length,) = struct.unpack("<Q", _take(link, 8, ends))
    text = _take(link, length, ends) if length < 32 else b""
    return int(text) if text.isdigit() else None


def look(target: Target) -> Iterator[Finding]:
    job = job_of(target.job) if target.job is not None else None
    if job is not None and job.ranks:
        yield from asked(see(job, with_stacks=False))


def asked(scene: Scene) -> Iterator[Finding]:
    """What the store of a job that meets just now says; nothing of other jobs."""
    job = scene.job
    if not _waits_for_others(scene):
        return
    where = store_of(scene)
    if where is None or job.world_size is None:
        yield unknown("store-peek", "where the job's store is, or its world size, is not known")
        return
    host, port = where
    if not names_are_quick():
        yield unknown(
            "store-peek",
            "reverse look-ups of names are slow here: the store would look up ours and let the"
            " ranks wait meanwhile",
        )
        return
    try:
        joined = peek(host, port, job.world_size, lists=torch_version(job) >= LISTS_FROM)
    except OSError as why:
        yield unknown("store-peek", f"the store at {clean(host)}:{port} did not answer: {why}")
        return
    yield said(job, joined, _is_hosted_by_rank(job), f"{clean(host)}:{port}")


def said(job: Job, joined: Joined, hosted_by_rank: bool, where: str) -> Finding:
    """Who lacks, by what ranks write on their way in."""
    world = job.world_size or 0
    count = None if joined.count is None else max(0, joined.count - joined.nodes)
    everyone = range(1 if hosted_by_rank else 0, min(world, MOST_RANKS))
    absent = [n for n in everyone if n not in joined.published]
    data = {
        "joined": count, "world_size": world, "keys": joined.keys,
        "published": sorted(joined.published)[:256],
    }  # fmt: skip
    how = f"{'?' if count is None else count} of {world} joined the store at {where}"
    evidence = (Evidence(f"the store at {where}", (how,)),)
    if count is not None and count >= world:
        if joined.published and absent:
            named = ", ".join(map(str, absent[:16]))
            return Finding(
                "store-peek", "joined-then-silent",
                f"{how}, but rank {named} told no address: it is stuck or ended, or two processes"
                " used one rank", data | {"missing": absent[:64]}, evidence,
            )  # fmt: skip
        return Finding("store-peek", "all-joined", how, data, evidence)
    if not joined.published and (count or 0) > 1:
        return Finding("store-peek", "counted", f"{how}; which ones, the store does not say",
                       data, evidence)  # fmt: skip
    named = ", ".join(map(str, absent[:16]))
    return Finding("store-peek", "ranks-missing", f"{how}; missing: rank {named}",
                   data | {"missing": absent[:64]}, evidence)  # fmt: skip


def _waits_for_others(scene: Scene) -> bool:
    return any(d.state in ("in-rendezvous", "waiting-for-store") for d in scene.alive)


def store_of(scene: Scene) -> tuple[str, int] | None:
    """The store that ranks of this job are connected to, or that one of them hosts."""
    port = scene.job.port
    if port is None:
        return None
    if any(port in d.wires.listening for d in scene.alive):
        return "127.0.0.1", port
    link = next((s for d in scene.alive for s in d.wires.store if s.peer_port == port), None)
    return (link.peer, port) if link else None


def _is_hosted_by_rank(job: Job) -> bool:
    return any(
        any(name.startswith("pt_tcpstore") for name in r.process.thread_names or ())
        for r in job.ranks if in_group(r.process)
    )  # fmt: skip


def torch_version(job: Job) -> tuple[int, int]:
    """Of the torch that the ranks have loaded, by its folder; (0, 0) where it is not told."""
    for rank in job.ranks[:1]:
        maps = read(f"{rank.process.path}/maps", 8 << 20) or b""
        found = re.search(rb"(/\S+)/lib/libtorch_cpu\.so", maps) or re.search(
            rb"(/\S+)/lib/libc10\.so", maps
        )
        root = f"{rank.process.path}/root{found[1].decode(errors='replace')}" if found else ""
        text = read(f"{root}/version.py", 1 << 16) or b"" if root else b""
        version = re.search(rb"__version__ = ['\"](\d+)\.(\d+)", text)
        if version:
            return int(version[1]), int(version[2])
    return 0, 0


def names_are_quick() -> bool:
    """Whether a look-up like the one the store makes for us comes back at once."""
    done = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            socket.getnameinfo(("::ffff:127.0.0.1", 9, 0, 0), 0)
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    return done.wait(SLOW_NAMES)


PROBES = (
    Probe(
        "store-peek",
        "Which ranks have joined, as the job's own store tells?",
        {
            "all-joined": "ok",
            "counted": "info",
            "joined-then-silent": "bad",
            "ranks-missing": "bad",
        },
        look,
        lambda target: target.job is not None and target.may_touch,
        deadline=20.0,
        disturbs=True,
    ),
)
