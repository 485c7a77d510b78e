"""What travels to a node: our probes as a zip on stdin, and the one line that unpacks them."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from ddp_assist import probes

PROBES = Path(probes.__file__).parent
AGENT = "ddp_assist.probes.fleet.agent"
MARK = "@ddp-assist:"


def boot(python: str, token: str) -> str:
    """The command that a node's shell is given: one word in double quotes for sh, csh and fish."""
    lines = ";".join(
        (
            "import sys",
            "sys.version_info>=(3,10) or sys.exit('python-too-old '+sys.version[:4])",
            "import atexit,io,runpy,shutil,tempfile,zipfile",
            "d=tempfile.mkdtemp(prefix='ddp-assist-node-')",
            "atexit.register(shutil.rmtree,d,True)",
            "b=sys.stdin.buffer",
            "zipfile.ZipFile(io.BytesIO(b.read(int(b.readline())))).extractall(d)",
            "sys.path.insert(0,d)",
            f"runpy.run_module('{AGENT}',run_name='__main__')",
        )
    )
    return f'{python} -I -c "{lines}" {token}'


@cache
def parcel() -> bytes:
    """The package with its probes and nothing else, behind a line with its length."""
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("ddp_assist/__init__.py", "")
        for path in sorted(PROBES.rglob("*.py")):
            inside = path.relative_to(PROBES)
            if inside.parts[0] not in ("script", "logs", "gpu", "jobs"):
                zipped.write(path, f"ddp_assist/probes/{inside}")
    return b"%d\n" % box.tell() + box.getvalue()
