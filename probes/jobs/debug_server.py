"""The flight recorders of a job that lives, asked of the debug servers that its ranks run.

On request only. The job's store tells where they are, and only a port on which the rank itself
listens is asked, twice: what moved between two answers is no hang.
"""

from __future__ import annotations

import http.client
import os
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.jobs.peek import store_of, values
from ddp_assist.probes.jobs.scene import Scene, see
from ddp_assist.probes.logs import plain_json
from ddp_assist.probes.logs.flight_recorder import Dump, NoDump, compared, dump_of
from ddp_assist.probes.model import Finding, unknown
from ddp_assist.probes.text import clean

KEY = "/debug_server/rank{}"
WHERE = re.compile(r"https?://[^/\s]{1,255}:(\d{1,5})/?")
WITHIN = 3.0
BETWEEN = 1.0
MOST_BYTES = 32 << 20
MOST_RANKS = 256


def told(pid: int) -> Iterator[Finding]:
    """What the probe `flight-recorder` adds for a live job, once the user said yes."""
    job = job_of(pid)
    if job is None or not job.ranks or job.uid != os.getuid():
        return
    scene = see(job, with_stacks=False)
    try:
        ports = servers(scene)
    except OSError as why:
        yield unknown("flight-recorder", f"the job's store did not answer: {clean(str(why))}")
        return
    if not ports:
        return
    first = _dumps(ports)
    time.sleep(BETWEEN)
    second = _dumps(ports)
    silent = sorted(set(ports) - set(second))
    if silent:
        named = ", ".join(map(str, silent[:16]))
        yield unknown("flight-recorder", f"the debug server of rank {named} did not answer")
    if any(rank in first and first[rank].last != dump.last for rank, dump in second.items()):
        yield Finding("flight-recorder", "moves", "what the ranks record goes on: no hang")
        return
    # A rank without a server, or on another host, has no dump here: that says nothing of it.
    if second:
        every = compared([second[rank] for rank in sorted(second)])
        yield from (f for f in every if f.outcome != "missing-dump")


def servers(scene: Scene) -> dict[int, int]:
    """The ranks here whose debug servers the store names, each with its port."""
    where = store_of(scene)
    listening = {d.rank.rank: d.wires.listening for d in scene.alive if d.rank.rank is not None}
    if where is None or not listening:
        return {}
    ranks = sorted(listening)[:MOST_RANKS]
    urls = values(*where, [KEY.format(rank) for rank in ranks])
    found = {rank: WHERE.fullmatch(urls.get(KEY.format(rank), "")) for rank in ranks}
    return {
        rank: int(at[1]) for rank, at in found.items()
        if at is not None and int(at[1]) in listening[rank]
    }  # fmt: skip


def _dumps(ports: Mapping[int, int]) -> dict[int, Dump]:
    with ThreadPoolExecutor(16) as pool:
        every = pool.map(lambda one: (one[0], _dump(*one)), ports.items())
        return {rank: dump for rank, dump in every if dump is not None}


def _dump(rank: int, port: int) -> Dump | None:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    try:
        link.request("POST", "/handler/fr_trace_json")
        answer = link.getresponse()
        data = answer.read(MOST_BYTES)
        if answer.status != 200:
            return None
        return dump_of(plain_json.load(data), f"the debug server of rank {rank}", rank)
    except (OSError, http.client.HTTPException, plain_json.NotPlain, NoDump):
        return None
    finally:
        link.close()
