"""Files that Python would take for a module of the standard library or of torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ddp_assist.probes.host.python import environment
from ddp_assist.probes.model import Target

# Loaded before any script can stand in their way.
BEFORE = {
    "sys", "builtins", "os", "io", "abc", "codecs", "encodings", "site", "stat", "time", "posix",
    "posixpath", "genericpath", "marshal", "zipimport",
}  # fmt: skip
# Not loaded by `import torch`: a file of that name harms only who imports it.
UNUSED = {
    "antigravity", "cgi", "chunk", "cmd", "code", "colorsys", "configparser", "crypt", "curses",
    "distutils", "doctest", "filecmp", "fileinput", "html", "idlelib", "imp", "mailbox", "netrc",
    "pipes", "profile", "pty", "sched", "shelve", "smtplib", "sqlite3", "statistics", "symtable",
    "syslog", "this", "tkinter", "trace", "turtle", "turtledemo", "tty", "uu", "venv", "wave",
    "webbrowser", "xml", "xmlrpc", "zipapp",
}  # fmt: skip
THIRD = {
    "torch", "numpy", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "filelock",
    "mpmath", "markupsafe", "packaging", "yaml",
}  # fmt: skip


def folders(target: Target) -> Iterator[Path]:
    """Where Python looks before it looks into its own library."""
    plan, env = target.plan, environment(target)
    script = target.script or (plan.script_path if plan else None)
    if not env.get("PYTHONSAFEPATH"):
        if plan and (plan.module or plan.launcher.startswith("torch.distributed.")):
            yield plan.cwd
        if script:
            yield script.parent
    base = plan.cwd if plan else target.cwd
    for folder in filter(None, env.get("PYTHONPATH", "").split(os.pathsep)):
        if "\0" not in folder:
            yield base / folder


def shadows(folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """Name, file, and whether importing torch will meet it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if (folder / "site.py").exists() and (folder / "os.py").exists():
        return  # this is a standard library itself
    # `pip install --target` makes a folder like site-packages, under any name.
    installed = {"site-packages", "dist-packages"} & set(folder.parts) or any(
        entry.name.endswith(".dist-info") for entry in entries
    )
    for entry in entries:
        name, dot, suffix = entry.name.partition(".")
        is_module = dot and suffix in ("py", "pyc", "so")
        if not is_module and not (
            not dot and os.path.exists(os.path.join(entry.path, "__init__.py"))
        ):
            continue
        if name in BEFORE or (name in THIRD and (installed or _is_real(Path(entry.path)))):
            continue
        if name in sys.stdlib_module_names or name in THIRD:
            yield name, Path(entry.path), name not in UNUSED


def _is_real(package: Path) -> bool:
    """Whether this is the library itself, put on PYTHONPATH by somebody who means it."""
    egg = any(package.parent.glob(f"{package.name}-*.egg-info"))
    return egg or (package / "version.py").is_file()
