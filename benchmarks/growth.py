"""How cost grows: with sockets, processes, log bytes, signatures, findings and ranks.

    python benchmarks/growth.py [--rounds 5]

Each curve is drawn into docs/growth/NAME.svg; CPU seconds of one thread, so that a busy machine
bends nothing, except for ranks, whose processes are many.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path
from typing import Any

from logs import write_log
from measuring import ROOT, keep
from processes import sleepers

from ddp_assist.app.report import Redactor, render
from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.logs.reading import read
from ddp_assist.probes.logs.scan import Scanner
from ddp_assist.probes.logs.signatures import signatures
from ddp_assist.probes.network.sockets import on_port, tcp
from ddp_assist.probes.trial.spec import TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

Points = list[tuple[float, float]]
LISTENING = 1 << 10


def cpu(what: Callable[[], object], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.process_time()
        what()
        took.append(time.process_time() - began)
    return min(took)


@contextmanager
def listeners(count: int) -> Iterator[int]:
    """So many listening sockets, and the port of the last."""
    with ExitStack() as held:
        port = 0
        for n in range(count):
            address = f"127.0.{n // 20_000}.{1 + n // 100 % 200}"
            server = held.enter_context(socket.create_server((address, 0), backlog=1))
            port = server.getsockname()[1]
        yield port


def by_sockets(rounds: int) -> Points:
    points = []
    for count in (10, 100, 1_000, 4_000):
        with listeners(count):
            points.append((float(count), cpu(lambda: tcp(LISTENING), rounds)))
    return points


def by_sockets_one_port(rounds: int) -> Points:
    points = []
    for count in (10, 100, 1_000, 4_000):
        with listeners(count) as port:
            points.append((float(count), cpu(lambda p=port: on_port(p), rounds)))  # type: ignore[misc]
    return points


def by_processes(rounds: int) -> Points:
    points = []
    for count in (100, 500, 1_000, 2_000):
        with sleepers(count):
            points.append((float(len(snapshot())), cpu(snapshot, rounds)))
    return points


def by_log_bytes(rounds: int) -> Points:
    points = []
    with tempfile.TemporaryDirectory() as tmp:
        for size in (5, 20, 80):
            log = Path(tmp, f"{size}.log")
            write_log(log, size, 64)
            read((str(log),))  # patterns are compiled once
            points.append((float(size), min(cpu(lambda p=log: _again(p), 1) for _ in range(2))))  # type: ignore[misc]
    return points


def _again(log: Path) -> None:
    os.utime(log)  # what was written since is no remembered answer
    read((str(log),))


def by_signatures(rounds: int) -> Points:
    with tempfile.TemporaryDirectory() as tmp:
        log = Path(tmp, "x.log")
        write_log(log, 20, 64)
        data = log.read_bytes()
    known = list(signatures())
    random.Random(7).shuffle(known)
    points = []
    for count in (25, 50, 100, 200, len(known)):
        scanner = Scanner(known[:count])
        sum(1 for _ in scanner.scan_bytes(data[:10_000]))
        points.append((float(count), cpu(lambda s=scanner: sum(1 for _ in s.scan_bytes(data)), 2)))  # type: ignore[misc]
    return points


def by_findings(rounds: int) -> Points:
    evidence = {"source": "a log", "lines": ["[rank0]: step 12 on node07 10.4.2.7"], "see": ["ss"], "when": 1.0}  # noqa: E501
    redactor = Redactor({"A_TOKEN": "canary-value-1"}, "node07", "jdoe", "/home/jdoe")
    points = []
    for count in (30, 100, 300, 1_000):
        findings = [
            {"probe": "p", "outcome": f"o{n}", "sentence": f"seen {n}", "data": {"n": n},
             "evidence": [evidence], "seconds": 0.1}
            for n in range(count)
        ]  # fmt: skip
        result: dict[str, Any] = {"causes": [], "fixes": [], "noise": [], "findings": findings}
        points.append((float(count), cpu(lambda r=result: render(r, "html", redactor), rounds)))  # type: ignore[misc]
    return points


def by_ranks(rounds: int) -> Points:
    points = []
    with WarmTorch() as warm:
        warm.run_trial(TrialSpec())
        for ranks in (2, 4, 8, 16):
            took = []
            for _ in range(rounds):
                began = time.perf_counter()
                assert warm.run_trial(TrialSpec(nproc=ranks)).joined
                took.append(time.perf_counter() - began)
            points.append((float(ranks), min(took)))
    return points


CURVES: dict[str, tuple[str, Callable[[int], Points]]] = {
    "sockets": ("listening sockets of the host: all of them asked for", by_sockets),
    "port": ("listening sockets of the host: one port asked for", by_sockets_one_port),
    "processes": ("processes of the host: one pass", by_processes),
    "log": ("MB of a log of 64 ranks: read and recognised", by_log_bytes),
    "signatures": ("signatures: a log of 20 MB", by_signatures),
    "findings": ("findings of a case: the HTML report", by_findings),
    "ranks": ("ranks of a warm trial, 2 cores", by_ranks),
}


def slope(points: Points) -> float:
    """The power with which cost grows from the second point to the last: 1 is linear, 0 is flat."""
    (x0, y0), (x1, y1) = points[1], points[-1]
    return math.log(max(y1, 1e-9) / max(y0, 1e-9)) / math.log(x1 / x0)


def drawing(title: str, points: Points) -> str:
    """One curve, from nought, with its points named: readable in light and dark."""
    wide, high, left, low = 520, 260, 64, 220
    x_most, y_most = points[-1][0], max(y for _, y in points) or 1e-9
    across, up = (wide - left - 24) / x_most, (low - 30) / y_most
    at = [(left + across * x, low - up * y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{wide}" height="{high}" fill="#fff"/>',
        f'<path d="M{left} 24V{low}H{wide - 16}" fill="none" stroke="#888"/>',
        f'<polyline points="{line}" fill="none" stroke="#24578c" stroke-width="2"/>',
    ]
    for (x, y), (amount, seconds) in zip(at, points, strict=True):
        rows.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#24578c"/>')
        rows.append(_text(x, y - 9, f"{_time(seconds)}", "middle"))
        rows.append(_text(x, low + 16, f"{amount:g}", "middle"))
    rows.append(_text(wide / 2, high - 8, title, "middle"))
    return "\n".join([*rows, "</svg>"]) + "\n"


def _text(x: float, y: float, said: str, anchor: str) -> str:
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(said)}</text>'


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def main(chosen: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=5)
    rounds = asked.parse_args().rounds
    folder = ROOT / "docs" / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (title, curve) in CURVES.items():
        points = curve(rounds)
        (folder / f"{name}.svg").write_text(drawing(title, points))
        power = round(slope(points), 2)
        rows.append({"what": title, "name": name, "points": points, "power": power})
    keep("growth", rows)


if __name__ == "__main__":
    main()
