"""Reading: encodings, notebooks, what is refused, what is followed, where the ranks meet."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.script.check import OUTCOMES, PROBES, look
from ddp_assist.probes.script.facts import endpoints, read_facts
from ddp_assist.probes.script.names import missing_names
from ddp_assist.probes.script.read import MOST_BYTES, ScriptError, parse, read_source

SPAWN = """
import os
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, size):
    {setting}
    dist.init_process_group("gloo", rank=rank, world_size=size)


if __name__ == "__main__":
    mp.spawn(work, args=(2,), nprocs=2)
"""


def found(script: Path, **more: object) -> list[Finding]:
    return list(look(Target(script=script, env={}, cwd=script.parent, **more)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfimport os\nprint(os, h\xc3\xb6he)\n",
        "# coding: latin-1\nimport os\nprint(os, höhe)\n".encode("latin-1"),
        "#!/usr/bin/env python\n# vim: set fileencoding=utf-8 :\nprint(höhe)\n".encode(),
        b"import os\r\nprint(os, h\xc3\xb6he)\r\n",
    ],
)
def test_encodings(raw: bytes, tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_bytes(raw)
    (finding,) = found(script)
    assert finding.data["name"] == "höhe"
    source = read_source(script)
    row = source.line(finding.data["line"])
    assert row[finding.data["col"] : finding.data["end_col"]] == "höhe"


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (b"x = '\xff\xfe'\n", "encoding"),
        (b"# coding: klingon\nx = 1\n", "encoding"),
        (b"#" * (MOST_BYTES + 1), "longer"),
        (b"x\n" * 1_000_000, "lines"),
        (b"x = " + b"(" * 100_000, "parser|nested"),
    ],
)
def test_what_can_not_be_read_is_unknown(raw: bytes, because: str, tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_bytes(raw)
    (finding,) = found(script)
    assert finding.outcome in ("unknown", "name-missing-in-script")
    assert finding.outcome != "unknown" or any(w in finding.sentence for w in because.split("|"))


def test_no_file_a_folder_a_pipe(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "p.py"
    os.mkfifo(pipe)
    for path in (tmp_path / "none.py", tmp_path, pipe):
        with pytest.raises(ScriptError):
            read_source(path)


def test_null_bytes_are_a_syntax_error_with_a_place(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_bytes(b"import os\nx = 1\0\n")
    (finding,) = found(script)
    assert (finding.outcome, finding.data["line"]) == ("name-missing-in-script", 2)


def test_a_deep_expression_ends_without_an_exception(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text("x = " + "+".join(["1"] * 3000) + "\n")
    assert [f.outcome for f in found(script)] in (["fine"], ["unknown"])


def test_functions_that_call_each_other_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(
        "def a(x):\n    return b(x) + b(x + 1) + a(x)\ndef b(x):\n    return a(x) + a(2) + "
        "b(3)\na(1)\n"
        + "".join(f"def f{i}(x):\n    return f{i + 1}(x) + f{i + 1}(x + 1)\n" for i in range(40))
        + "f0(1)\n"
    )
    began = time.process_time()
    found(script)
    assert time.process_time() - began < 5


def test_the_budget_ends_inside_of_a_with(tmp_path: Path) -> None:
    """A context manager of the script's own is left as it was entered."""
    script = tmp_path / "train.py"
    script.write_text(
        "import contextlib, os\n@contextlib.contextmanager\ndef held():\n    yield\n\n"
        "def work(a):\n    with held():\n" + "        a = a + 1 + 2 + 3\n" * 12_000
    )
    list(look(Target(script=script, env={}, cwd=tmp_path)))


def test_a_path_of_nothing(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import os\nos.path.join()\n")
    (found,) = look(Target(script=script, env={}, cwd=tmp_path))
    assert found.outcome == "fine"


def test_a_notebook_names_the_cell_and_skips_magics(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# title"]},
        {
            "cell_type": "code",
            "source": [
                "%matplotlib inline\n",
                "!pip install x\n",
                "import torch.multiprocessing as mp",
            ],
        },
        {"cell_type": "code", "source": "%%bash\nls ("},
        {
            "cell_type": "code",
            "source": ["def work(rank):\n", "    print(rank)\n", "mp.spawn(work, nprocs=2)"],
        },
    ]
    script = tmp_path / "a.ipynb"
    script.write_text(json.dumps({"cells": cells}))
    (finding,) = found(script)
    assert finding.outcome == "notebook-main"
    assert "cell 4, line 3" in finding.sentence
    script.write_text('{"cells": 3}')
    assert [f.outcome for f in found(script)] == ["unknown"]


def test_nothing_is_run_or_imported(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "beside.py").write_text(f"open({str(mark)!r}, 'w')\n")
    script = tmp_path / "a.py"
    script.write_text(f"import beside, os\nopen({str(mark)!r}, 'w')\nos.system('touch {mark}')\n")
    found(script)
    assert not mark.exists()
    assert "beside" not in sys.modules


@pytest.mark.parametrize(
    ("setting", "host", "port"),
    [
        (
            'os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "10.0.0.7", "29611"',
            "10.0.0.7",
            29611,
        ),
        (
            'os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(29000 + 12))',
            "localhost",
            29012,
        ),
        (
            'os.environ.setdefault("MASTER_ADDR", "::1"); os.environ.setdefault("MASTER_PORT", '
            '"7001")',
            "::1",
            7001,
        ),
    ],
)
def test_endpoints(setting: str, host: str, port: int, tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(SPAWN.format(setting=setting))
    facts = read_facts(Target(script=script, env={}, cwd=tmp_path), script)
    assert [(e.host, e.port) for e in endpoints(facts)] == [(host, port)]
    assert "a.py:" in endpoints(facts)[0].origin


def test_endpoint_of_an_address_and_of_a_store(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(
        "import argparse\nimport torch.distributed as dist\nap = argparse.ArgumentParser()\n"
        "ap.add_argument('--port', type=int, default=29801)\na = ap.parse_args()\n"
        "dist.TCPStore('127.0.0.1', a.port, is_master=True)\n"
        "dist.init_process_group('gloo', init_method='tcp://10.1.1.1:23456', rank=0, "
        "world_size=1)\n"
    )
    plan = LaunchPlan("python", script="a.py", cwd=tmp_path, script_args=("--port=29802",))
    for target, port in (
        (Target(script=script, env={}), 29801),
        (Target(plan=plan, env={}), 29802),
    ):
        pairs = {(e.host, e.port) for e in endpoints(read_facts(target, script))}
        assert pairs == {("127.0.0.1", port), ("10.1.1.1", 23456)}


def test_a_stale_meeting_file_is_looked_for(tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    script = tmp_path / "a.py"
    script.write_text(
        "import sys\nimport torch.distributed as dist\n"
        f"dist.init_process_group('gloo', init_method='file://{meet}', rank=int(sys.argv[1]), "
        "world_size=2)\n"
    )
    assert [f.outcome for f in found(script)] == ["init-file-stale-maybe", "fine"]
    meet.write_bytes(b"old")
    assert [f.outcome for f in found(script)] == ["init-file-stale"]


def test_names_of_each_scope() -> None:
    source = parse(
        Path("a.py"),
        "def f():\n    helper = 1\n    return helper\ndef g():\n    return helper\nclass C:\n    "
        "k = 1\n"
        "    def m(self):\n        return k\n[i for i in range(3)]\nprint(i)\n",
    )
    assert [(m.name, m.node.lineno) for m in missing_names(source)] == [
        ("helper", 5),
        ("k", 9),
        ("i", 11),
    ]


def test_the_probe_declares_what_it_says() -> None:
    (probe,) = PROBES
    assert probe.outcomes is OUTCOMES
    assert probe.outcomes["fine"] == "ok"
    assert all(probe.outcomes[o] == "info" for o in probe.outcomes if o.endswith("-maybe"))


def test_a_package_started_with_m(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "train.py").write_text("from . import parts\nparts.go(1)\nprint(lost)\n")
    (tmp_path / "pkg" / "parts.py").write_text("def go(x):\n    return y\n")
    plan = LaunchPlan("torchrun", script="pkg.train", module=True, cwd=tmp_path, nproc=2)
    names = {f.data.get("name") for f in look(Target(plan=plan, env={}, cwd=tmp_path))}
    assert {"lost", "y"} <= names
