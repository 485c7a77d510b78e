"""The tree loads no pickle, evaluates no input and starts no shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    p for folder in ("app", "probes", "screens") for p in sorted((ROOT / folder).rglob("*.py"))
]
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",  # noqa: E501
    "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "eval", "exec", "compile",
}  # fmt: skip


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        shell = any(
            k.arg == "shell" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in node.keywords
        )
        if name in NEVER or shell:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_does_what_must_never_be_done(path: Path) -> None:
    assert offences(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle\npickle.loads(b'')", "eval('1')", "run('x', shell=True)", "os.system('x')"],
)
def test_the_look_itself_sees(source: str) -> None:
    assert offences(source)
