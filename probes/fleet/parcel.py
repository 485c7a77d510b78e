"""What travels to a node: our probes as a zip on stdin, and the one line that unpacks them."""

from __future__ import annotations

import importlib.util
import io
import marshal
import re
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

from ddp_assist import probes

PROBES = Path(probes.__file__).parent
AGENT = "ddp_assist.probes.fleet.agent"
FOLDER = "ddp-assist-node-"
MARK = "@ddp-assist:"
PYTHONS = (
    "python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9",
    "python", "/usr/bin/python3", "$HOME/miniconda3/bin/python", "$HOME/miniforge3/bin/python",
    "$HOME/anaconda3/bin/python", "/opt/conda/bin/python",
)  # fmt: skip
TOO_OLD = 93
SOURCES, COMPILED = "sources", importlib.util.MAGIC_NUMBER.hex()
"""The two halves of the parcel; a node unpacks one of them."""
SWEEPER = r'sh -c "read end; rm -rf \"\$0\""'
"""Beside the agent, in a session of its own: it removes the folder when the agent was killed."""
# No quote of any kind: the login shell may be sh, csh or fish. Python 2 must still understand it.
CODE = ";".join(
    (
        "import sys",
        f"sys.version_info<(3,9) and sys.exit({TOO_OLD})",
        "import atexit,importlib.util,io,runpy,shutil,subprocess,tempfile,zipfile",
        "d=tempfile.mkdtemp(prefix=sys.argv[2])",
        "atexit.register(shutil.rmtree,d,True)",
        "n=subprocess.DEVNULL",
        "s=sys.argv[7:]+[d]",
        "s=subprocess.Popen(s,stdin=-1,stdout=n,stderr=n,start_new_session=True)",
        "b=sys.stdin.buffer",
        "z=zipfile.ZipFile(io.BytesIO(b.read(int(b.readline()))))",
        "k=sys.argv[5+(importlib.util.MAGIC_NUMBER.hex()!=sys.argv[5])]+chr(47)",
        "z.extractall(d,[n for n in z.namelist() if n.startswith(k)])",
        "sys.path.insert(0,d+chr(47)+k[:-1])",
        "runpy.run_module(sys.argv[3],run_name=sys.argv[4])",
    )
)


def boot(pythons: Sequence[str], token: str) -> str:
    """The command that a node's shell is given. The first Python that is there and new enough reads
    the parcel; `pythons` come first, or alone where they are what the user named."""
    words = " ".join(f'"{word}"' for word in pythons if re.fullmatch(r"[\w./+$-]+", word))
    arguments = f"{token} {FOLDER} {AGENT} __main__ {COMPILED} {SOURCES} {SWEEPER}"
    script = (
        f"f=no-python; for p in {words}; do"
        ' command -v "$p" >/dev/null 2>&1 || continue;'
        f' "$p" -IB -c "{CODE}" {arguments}; r=$?;'
        f" case $r in 2|{TOO_OLD}) f=python-too-old;; 126|127) f=no-python;; *) exit $r;; esac;"
        " done; echo $f >&2; exit 1"
    )
    return f"exec sh -c '{script}'"


@cache
def parcel() -> bytes:
    """The package with its probes and nothing else, behind a line with its length: compiled, for
    nodes with our version of Python, which then unpack and compile least; and as it was written,
    for all others."""
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as zipped:
        for path in sorted(PROBES.rglob("*.py")):
            inside = path.relative_to(PROBES)
            if inside.parts[0] in ("script", "logs", "jobs"):
                continue
            name = ".".join(("ddp_assist.probes", *inside.with_suffix("").parts))
            _pack(zipped, path, f"ddp_assist/probes/{inside}", name)
        # What an older Python lacks is given to it before anything else is imported.
        zipped.write(PROBES / "fleet" / "old_python.py", f"{SOURCES}/ddp_assist/__init__.py")
        zipped.writestr(f"{COMPILED}/ddp_assist/__init__.py", "")
        spec = importlib.util.find_spec("pynvml")
        if spec is not None and spec.origin is not None:
            for half in (SOURCES, COMPILED):
                zipped.write(spec.origin, f"{half}/lent/pynvml.py")
    return b"%d\n" % box.tell() + box.getvalue()


def _pack(zipped: zipfile.ZipFile, path: Path, inside: str, name: str) -> None:
    zipped.write(path, f"{SOURCES}/{inside}")
    if path.stem.endswith("_child") or path.parent.name == "children":
        zipped.write(path, f"{COMPILED}/{inside}")  # run by its path, by any Python
    else:
        code = SourceFileLoader(name, str(path)).get_code(name)
        pyc = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
        zipped.writestr(f"{COMPILED}/{inside}c", pyc)
