"""Cures of a module that the launch's Python lacks: found elsewhere, installed, not imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from ddp_assist.app.fixes.launch_words import as_fix, edited, set_variable
from ddp_assist.app.fixes.model import Builder, Fix, Situation
from ddp_assist.app.fixes.script_draft import Cure, Draft, NotMine
from ddp_assist.app.fixes.script_text import Text, stored_in
from ddp_assist.probes.launch.plan import Launch, LaunchPlan
from ddp_assist.probes.launch.write import Edit
from ddp_assist.probes.model import Finding


def _lacking(situation: Situation) -> list[Finding]:
    """What says so; what nodes say names them, so it says more."""
    said = [f for f in situation.speaks_for if f.data.get("module") and f.data.get("interpreter")]
    return [f for f in said if f.data.get("nodes")] or said


def module_folder(situation: Situation) -> Fix | None:
    """Modules of the working directory, which is not where Python looks for a script elsewhere."""
    folders = {f.data.get("folder") for f in _lacking(situation)}
    folder = folders.pop() if len(folders) == 1 else None
    if not folder:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        kept = plan.environment(situation.target.env).get("PYTHONPATH")
        yield set_variable(launch, plan, "PYTHONPATH", f"{folder}:{kept}" if kept else folder)

    return as_fix(situation, f"let Python look in {folder} too", edited(situation, rule))


def install_module(situation: Situation) -> Fix | None:
    lacking = _lacking(situation)
    if not lacking:
        return None
    steps = [_installed(finding) for finding in lacking]
    steps.append(
        "Where a rank can do without it, drop the import, or put it into `try: ... except"
        " ImportError:`."
    )
    title = f"install what the launch's Python lacks: {', '.join(_names(lacking))}"
    why = "nothing is installed here"
    return Fix(situation.cause, title, "system", steps=tuple(steps), why=why)


def _names(lacking: list[Finding]) -> list[str]:
    return list(dict.fromkeys(str(f.data["module"]) for f in lacking))


def _installed(finding: Finding) -> str:
    data = finding.data
    where = f" on {data['nodes']}" if data.get("nodes") else ""
    if data.get("provider"):
        name, _, version = str(data["provider"]).rpartition(" ")
        return f"Install it{where}: `{data['interpreter']} -m pip install {name}=={version}`."
    return (
        f"Install what provides the module {data['module']}{where} into the environment of"
        f" {data['interpreter']} (`{data['interpreter']} -m pip install ...`; the package may be"
        " called otherwise than the module)."
    )


def drop_import(draft: Draft) -> None:
    """An import whose names nothing uses."""
    if draft.data.get("kind") != "import":
        raise NotMine
    text = draft.text
    for finding in draft.alike:
        place = [finding.data[k] for k in ("line", "col", "end_line", "end_col")]
        statement = text.node_at(place, (ast.Import, ast.ImportFrom))
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            raise NotMine
        _drop(text, statement, str(finding.data["name"]))


def _drop(text: Text, statement: ast.Import | ast.ImportFrom, module: str) -> None:
    tree = text.source.tree or ast.Pass()
    if "__all__" in text.source.text or stored_in(statement) & _used(tree):
        raise NotMine
    kept = [
        ast.unparse(alias)
        for alias in statement.names
        if isinstance(statement, ast.Import) and alias.name.partition(".")[0] != module
    ]
    text.replace(text.place(statement), f"import {', '.join(kept)}" if kept else "pass")


def _used(tree: ast.AST) -> set[str]:
    """Names that are read, and what stands in strings: annotations may be written so."""
    words: set[str] = {"*"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            words.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.update(node.value.replace(".", " ").split())
    return words


CURES = {
    "drop-import": Cure(
        "do not import what nothing uses",
        ("drop the import",),
        drop_import,
        ("module-missing",),
        "what importing it does by itself is not done any more; where that is needed, install it",
    ),
}
BUILDERS: Mapping[str, Builder] = {
    "module-folder": module_folder,
    "install-module": install_module,
}
