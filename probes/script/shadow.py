"""Files beside the script that stand in the way of a module which torch itself imports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

# What `import torch` loads of the standard library, and what start-up has not loaded already.
NEEDED: Final = frozenset(
    [
        "argparse",
        "array",
        "ast",
        "asyncio",
        "base64",
        "binascii",
        "bisect",
        "bz2",
        "calendar",
        "cmath",
        "code",
        "codeop",
        "collections",
        "concurrent",
        "contextlib",
        "contextvars",
        "copy",
        "copyreg",
        "csv",
        "ctypes",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "dis",
        "email",
        "enum",
        "fcntl",
        "fnmatch",
        "fractions",
        "functools",
        "gettext",
        "glob",
        "grp",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "http",
        "importlib",
        "inspect",
        "ipaddress",
        "json",
        "keyword",
        "linecache",
        "locale",
        "logging",
        "lzma",
        "mmap",
        "multiprocessing",
        "numbers",
        "opcode",
        "operator",
        "optparse",
        "pathlib",
        "pdb",
        "pickle",
        "pickletools",
        "pkgutil",
        "platform",
        "pprint",
        "queue",
        "quopri",
        "random",
        "re",
        "reprlib",
        "runpy",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "statistics",
        "string",
        "struct",
        "subprocess",
        "tarfile",
        "tempfile",
        "textwrap",
        "threading",
        "timeit",
        "token",
        "tokenize",
        "traceback",
        "types",
        "typing",
        "unittest",
        "urllib",
        "uuid",
        "warnings",
        "weakref",
        "xml",
        "zipfile",
        "zlib",
        "cmd",
        "bdb",
        "sched",
        "pwd",
    ]
)
PACKAGES: Final = frozenset(
    {"torch", "numpy", "typing_extensions", "sympy", "networkx", "jinja2", "filelock", "fsspec"}
)


def shadows(folder: Path, imported: set[str]) -> list[Path]:
    """Files and packages in `folder` that are found before the module they are named after."""
    found: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return found
    for entry in entries:
        name = entry.stem if entry.suffix == ".py" else entry.name
        if entry.suffix != ".py" and not (entry / "__init__.py").is_file():
            continue
        if name in sys.builtin_module_names:
            continue
        foreign = name in PACKAGES
        standard = name in NEEDED or (name in imported and name in sys.stdlib_module_names)
        if (foreign or standard) and not (entry / "version.py").is_file():
            found.append(entry)
    return found
