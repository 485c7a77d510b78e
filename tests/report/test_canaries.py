"""No canary comes out: secrets planted wherever a user has them, looked for in all that is made."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "MY_PASSPHRASE",
    "PGPASSWORD", "GIT_CREDENTIALS", "SLACK_WEBHOOK", "S3_SECRET", "COMET_API_KEY", "SOME_BEARER",
    "X_JWT", "CLIENT_SECRET", "SESSION_COOKIE", "AZURE_SAS", "SIGNING_KEY", "LICENSE_KEY", "DSN",
    "SSHPASS", "NEPTUNE_API_TOKEN",
)  # fmt: skip
SECRETS = {name: f"Cn4ry{n}+x/{n * 7919 % 997}Zq" for n, name in enumerate(NAMES, 1)}
SCRIPT = "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
HOST, USER = "canaryhost7", "canaryuser"
TYPED = "Typed99+secret/Word"


def forms(secret: str) -> set[str]:
    raw = secret.encode()
    encoded = base64.b64encode(raw).decode().rstrip("=")
    return {form.lower() for form in (secret, quote(secret, safe=""), encoded)}


def log() -> str:
    lines = [f"[rank0]: RuntimeError: could not use {value}" for value in SECRETS.values()]
    lines += [
        f"GET /?a={quote(value, safe='')} {base64.b64encode(value.encode()).decode()}"
        for value in SECRETS.values()
    ]
    lines += [
        f"{HOST}:4187:4187 [0] NCCL INFO Bootstrap : Using eth0:10.9.8.7<0>",
        f"{HOST.upper()}.lab.example /home/{USER}/runs/train.py",
        "RuntimeError: The server socket has failed to listen on any local network address. "
        "port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    """Every file that a diagnosis and the reports of it leave, and what `redact` prints."""
    home = tmp_path / "home" / USER
    home.mkdir(parents=True)
    (tmp_path / "x.log").write_text(log())
    (home / "train.py").write_text(SCRIPT)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "USER": USER, "LOGNAME": USER, **SECRETS,
        "PYTHONPATH": str(ROOT / "tests/typing"), "XDG_STATE_HOME": str(tmp_path / "state"),
        "LANG": "C.UTF-8",
    }  # fmt: skip

    def ask(*words: str) -> str:
        inner = 'hostname "$0" 2>/dev/null || echo "$0" >/proc/sys/kernel/hostname; exec "$@"'
        box = ["unshare", "-u", "sh", "-c", inner, HOST, sys.executable, "-m", "ddp_assist", *words]
        done = subprocess.run(
            box, env=env, capture_output=True, text=True, cwd=home, timeout=120, check=False
        )
        assert done.returncode in (0, 1, 5), done.stderr
        return done.stdout

    launch = [sys.executable, "train.py", "--api-key", TYPED, f"--url=https://u:{TYPED}@h.example/x"]
    ask("diagnose", "--no-trial", "--log", str(tmp_path / "x.log"), "--out", "out", "--", *launch)
    made = {path.name: path.read_text() for path in (home / "out").iterdir()}
    del made["launch.sh"]  # it must run, so it holds what was typed, for this user alone
    return made | {"redact": ask("redact", str(tmp_path / "x.log"))}


@pytest.mark.needs("namespaces")
def test_nothing_that_is_made_holds_a_canary(told: dict[str, str]) -> None:
    assert set(told) == {"case.json", "report.md", "report.html", "redact"}
    planted = [form for secret in (*SECRETS.values(), TYPED) for form in forms(secret)]
    for name, text in told.items():
        low = text.lower()
        assert [form for form in (*planted, HOST, USER) if form in low] == [], name
        assert "redacted:" in low and "host-1" in low, f"{name} shows nothing of what was hidden"
