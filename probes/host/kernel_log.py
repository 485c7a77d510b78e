"""The kernel's own messages, where we may read them, and the GPU faults among them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown

SOURCE = "/dev/kmsg"
RECENT = 24 * 3600.0
XID = re.compile(r"NVRM: Xid \((?P<device>[^)]*)\): (?P<xid>\d+)")
# Codes that a crashing or stopped program causes; the GPU itself is fine.
PROGRAM_XIDS = {13, 31, 43, 45, 68}


@dataclass(frozen=True, slots=True)
class Message:
    age: float
    text: str


def messages(source: str = SOURCE) -> list[Message]:
    """What the kernel's ring buffer holds; raises OSError where it is not for us."""
    handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    found: list[Message] = []
    try:
        while True:
            try:
                record = os.read(handle, 8192)
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # a record was overwritten while we read
            if not record:
                return found
            head, _, text = record.partition(b";")
            fields = head.split(b",")
            if len(fields) > 2 and fields[2].isdigit():
                line = text.split(b"\n")[0].decode("utf-8", "replace")
                found.append(Message(now - int(fields[2]) / 1e6, line))
    finally:
        os.close(handle)


def _look(_: Target) -> Iterator[Finding]:
    try:
        said = messages()
    except OSError as error:
        evidence = Evidence(SOURCE, see=("sudo", "dmesg", "-T"))
        yield unknown("kernel-log", f"the kernel log can't be read: {error.strerror}", evidence)
        return
    seen = False
    for message in said:
        if message.age > RECENT:
            continue
        when = f"{message.age / 60:.0f} minutes ago"
        evidence = Evidence("kernel log", (brief(message.text, 300),), ("dmesg", "-T"))
        if found := XID.search(message.text):
            seen = True
            xid = int(found["xid"])
            outcome = "xid-program" if xid in PROGRAM_XIDS else "xid"
            sentence = f"the GPU driver reported Xid {xid} for {brief(found['device'], 40)}, {when}"
            data = {
                "xid": xid,
                "device": brief(found["device"], 40),
                "seconds_ago": round(message.age),
            }
            yield Finding("kernel-log", outcome, sentence, data, (evidence,))
    if not seen:
        yield Finding("kernel-log", "fine", "the kernel log tells of no GPU fault")


KERNEL_LOG = Probe(
    "kernel-log",
    "Did the GPU driver report a fault to the kernel?",
    {"fine": "ok", "xid": "bad", "xid-program": "info"},
    _look,
)
PROBES: tuple[Probe, ...] = (KERNEL_LOG,)
