"""Why a node did not come: what ssh, Slurm, shells and Python say of it, and our sentence."""

from __future__ import annotations

import re

# The first that fits; all of ssh's own failures end with code 255.
REASONS = (
    ("host-key-changed", r"REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ("host-key-unknown", r"Host key verification failed|No \S+ host key is known"),
    ("name-unknown", r"Could not resolve hostname"),
    ("banner-timeout", r"timed out during banner exchange|Connection to \S+ port \d+ timed out"),
    ("timed-out", r"Connection timed out|Operation timed out"),
    ("refused", r"Connection refused"),
    ("no-route", r"No route to host|Network is unreachable"),
    ("password-wanted", r"Permission denied \(|Too many authentication failures"
     r"|Your password has expired|keyboard-interactive"),
    ("account-closed", r"System is booting up|nologin|This account is (?:currently )?not available"
     r"|Access denied: user \S+ .*has no active jobs"),
    ("no-ssh", r"\bssh: (?:command )?not found|No such file or directory: '?ssh'?"),
    ("closed", r"Connection closed by|kex_exchange_identification|Connection reset by"),
    ("python-too-old", r"^python-too-old"),
    ("no-room", r"No usable temporary directory|Read-only file system|No space left on device"
     r"|Disk quota exceeded"),
    ("no-python-runs", r"^\S*python\S*: (?:line )?\d+: |cannot execute|Exec format error"
     r"|error while loading shared libraries|version `GLIBC\S*' not found|Fatal Python error"
     r"|init_fs_encoding"),
    ("no-python", r"^no-python$"),
    ("no-slurm-step", r"srun: (?:error|Job step creation|Job \S+ step creation)"),
)  # fmt: skip
SENTENCES = {
    "host-key-changed": "ssh refuses it, because its host key has changed: ssh-keygen -R {node}",
    "host-key-unknown": "ssh does not know its host key: log in once by hand",
    "name-unknown": "its name does not resolve here",
    "banner-timeout": "it takes the connection, but its ssh server says nothing",
    "timed-out": "ssh gets no answer: a firewall, or the host is down",
    "refused": "ssh is refused: no ssh server runs there",
    "no-route": "there is no route to it",
    "password-wanted": "ssh wants a password or another key: set up a key or an agent",
    "account-closed": "it lets you in only with a running job, or to nobody now: ask within a job",
    "no-ssh": "there is no ssh client here",
    "closed": "it closed the ssh connection at once",
    "python-too-old": "its Python is older than 3.9: name another one with --python",
    "no-python": "there is no Python by that name: name one with --python",
    "no-python-runs": "its Python does not run there (another architecture or a missing library): "
    "name another one with --python",
    "no-room": "its temporary folder can't be written to",
    "no-slurm-step": "Slurm started no step there",
    "hangs": "the log-in worked, but nothing was said in time: does its shell start-up hang?",
    "died": "the connection ended in the middle",
}


def reason(state: str, said: str) -> str:
    """Which way a connection failed, by what was said."""
    if state == "ok":
        return "died"
    found = (name for name, pattern in REASONS if re.search(pattern, said, re.M))
    return next(found, "died")
