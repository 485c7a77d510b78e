"""The walk and the ranking, on a tree small enough to see through."""

from __future__ import annotations

from dataclasses import replace

from ddp_assist.app.tree import Page, Tree, read_page, read_tree, recognised
from ddp_assist.app.walk import rank
from ddp_assist.app.whole import problems
from ddp_assist.probes.model import Finding, Probe

TREE = """
[[symptom]]
id = "taken"
title = "port taken"
recognised_by = ["log.taken"]
start = "who"

[[symptom]]
id = "env"
title = "variables left"
recognised_by = ["env.left"]
start = "variables"

[[step]]
id = "who"
question = "who has it?"
probes = ["port"]
otherwise = ["step:later"]
unknown = ["orphan", "service"]
[step.on]
"port.orphan" = "orphan"
"port.service" = "service"

[[step]]
id = "later"
question = "was it free when you looked?"
probes = ["log"]
otherwise = ["lost", "service"]
[step.on]
"log.twice" = "likely twice"

[[step]]
id = "variables"
question = "what is left?"
probes = ["env"]
[step.on]
"env.left" = "left-over"
"""


def pages(**hides: tuple[str, ...]) -> dict[str, Page]:
    names = ("orphan", "service", "lost", "twice", "left-over")
    return {n: Page(n, n, "x", hides.get(n.replace("-", "_"), ()), (), "") for n in names}


def tree(**hides: tuple[str, ...]) -> Tree:
    return read_tree([TREE], pages(**hides))


PROBES = (
    Probe("port", "?", {"orphan": "bad", "service": "bad", "free": "ok"}, lambda t: ()),
    Probe("log", "?", {"taken": "bad", "twice": "bad"}, lambda t: ()),
    Probe("env", "?", {"left": "bad", "fine": "ok"}, lambda t: ()),
)


WEIGHTS = {f"{p.id}.{name}": weight for p in PROBES for name, weight in p.outcomes.items()}


def found(*keys: str) -> list[Finding]:
    return [Finding(*key.split("."), sentence=key, data={"order": n}) for n, key in enumerate(keys)]


def walk(
    *keys: str, asked: str = "port log env", **hides: tuple[str, ...]
) -> list[tuple[str, str]]:
    whole = tree(**hides)
    findings = found(*keys)
    complained = recognised(whole, [f for f in findings if f.probe == "log"])
    ranked = rank(whole, findings, complained, asked.split(), WEIGHTS)
    return [(r.cause, r.certainty) for r in ranked if r.hidden_by is None]


def test_what_was_seen_on_every_step_is_certain() -> None:
    assert walk("log.taken", "port.orphan") == [("orphan", "certain")]


def test_what_no_probe_could_answer_is_only_possible() -> None:
    assert walk("log.taken", asked="log env") == [("orphan", "possible"), ("service", "possible")]


def test_looked_and_not_seen_leaves_the_likeliest_first() -> None:
    assert walk("log.taken", "port.free") == [("lost", "likely"), ("service", "possible")]


def test_weak_evidence_stays_weak() -> None:
    assert walk("log.taken", "log.twice", "port.free")[0] == ("twice", "likely")


def test_nobody_complained_and_nothing_is_wrong() -> None:
    assert walk("port.free", "env.fine") == []


def test_nothing_is_guessed_where_nobody_complained() -> None:
    assert walk("env.fine", asked="") == []


def test_without_complaint_something_fine_leads_nowhere() -> None:
    fine = TREE.replace('"env.left" = "left-over"', '"env.left" = "left-over"\n"env.fine" = "lost"')
    whole = read_tree([fine], pages())
    assert rank(whole, found("env.fine"), [], ["env"], WEIGHTS) == []


def test_without_complaint_a_finding_still_counts() -> None:
    assert walk("env.left") == [("left-over", "certain")]


def test_the_complaint_goes_before_what_is_wrong_besides() -> None:
    assert [cause for cause, _ in walk("log.taken", "env.left", "port.orphan")][0] == "orphan"


def test_a_picked_complaint_that_nothing_speaks_for_goes_behind_what_is_certain() -> None:
    whole = tree()
    picked = [whole.symptoms["taken"]]
    for keys, first in (
        (("env.left", "port.free"), "left-over"),
        (("log.taken", "env.left", "port.free"), "lost"),
        (("port.free",), "lost"),
    ):
        ranked = rank(whole, found(*keys), picked, ["port", "log", "env"], WEIGHTS)
        assert ranked[0].cause == first


def test_a_step_that_asks_nobody_lets_only_what_was_seen_rule_out() -> None:
    free = TREE.replace('"port.orphan" = "orphan"', '"port.orphan" = "step:unless"') + """
[[step]]
id = "unless"
question = "does anything speak against it?"
otherwise = ["orphan"]
[step.on]
"log.twice" = []
"""
    whole = read_tree([free], pages())
    for keys, causes in (
        (("log.taken", "port.orphan"), [("orphan", "certain")]),
        (("log.taken", "port.orphan", "log.twice"), []),
    ):
        ranked = rank(whole, found(*keys), [whole.symptoms["taken"]], ["port"], WEIGHTS)
        assert [(r.cause, r.certainty) for r in ranked] == causes


def test_a_cause_of_last_resort_gives_way_where_its_failure_is_known() -> None:
    both = TREE.replace('"port.orphan" = "orphan"', '"story.failed" = "likely lost"')
    whole = read_tree([both], pages())
    pages_now = dict(whole.pages) | {"lost": replace(whole.pages["lost"], gives_way=True)}
    whole = replace(whole, pages=pages_now)
    at = {"file": "a.log", "line": 7}
    for data, first in (
        (at, "left-over"),
        ({"file": "a.log", "line": 8}, "lost"),
        ({"file": "a.log", "line": 8, "known_as": ["left"]}, "left-over"),
    ):
        findings = [Finding("story", "failed", "it failed", data), Finding("log", "left", "x", at)]
        env = replace(whole.symptoms["env"], recognised_by=("log.left",))
        known = replace(whole, symptoms=dict(whole.symptoms) | {"env": env})
        complained = [known.symptoms["taken"], env]
        ranked = rank(known, findings, complained, ["story"], WEIGHTS)
        assert ranked[0].cause == first, data


def test_a_cause_hides_what_it_explains() -> None:
    assert walk("log.taken", "env.left", "port.orphan", orphan=("left-over",)) == [
        ("orphan", "certain")
    ]


def test_what_was_seen_by_itself_is_not_explained_away() -> None:
    stands = TREE.replace("[step.on]", 'stands = ["env.left"]\n[step.on]', 1)
    whole = read_tree([stands], pages(orphan=("left-over",)))
    findings = found("log.taken", "env.left", "port.orphan")
    ranked = rank(whole, findings, [whole.symptoms["taken"]], ["port", "log", "env"], WEIGHTS)
    assert {r.cause for r in ranked} == {"orphan", "left-over"}


def test_a_mere_guess_hides_nothing_that_was_seen() -> None:
    causes = walk("log.taken", "env.left", asked="log env", orphan=("left-over",))
    assert ("left-over", "certain") in causes


def test_unknown_is_not_an_answer() -> None:
    findings = [*found("log.taken"), Finding("port", "unknown", "unknown, because")]
    whole = tree()
    ranked = rank(whole, findings, [whole.symptoms["taken"]], ["port", "log"], WEIGHTS)
    assert [r.certainty for r in ranked] == ["possible", "possible"]
    assert ranked[0].would_decide == ["who has it?"]


def test_what_led_elsewhere_counts_against() -> None:
    whole = tree()
    findings = found("log.taken", "port.orphan", "port.service")
    both = rank(whole, findings, [whole.symptoms["taken"]], ["port", "log"], WEIGHTS)
    assert {r.cause for r in both} == {"orphan", "service"}
    only = rank(
        whole, found("log.taken", "port.orphan"), [whole.symptoms["taken"]], ["port"], WEIGHTS
    )
    assert [r.cause for r in only] == ["orphan"]


def test_a_whole_tree_has_no_problems() -> None:
    assert problems(tree(), PROBES) == []


def test_each_way_to_be_broken_is_named() -> None:
    broken = TREE.replace('"port.orphan" = "orphan"', '"port.orphn" = "step:nowhere"')
    said = "\n".join(problems(read_tree([broken], pages()), PROBES))
    assert "port.orphn, which no probe says" in said
    assert "leads to nowhere, which is not there" in said
    assert "outcome port.orphan leads nowhere" in said


def test_a_circle_is_named() -> None:
    circle = TREE.replace('otherwise = ["lost", "service"]', 'otherwise = ["step:who"]')
    said = "\n".join(problems(read_tree([circle], pages()), PROBES))
    assert "who > later > who" in said
    assert "no step leads to cause lost" in said


def test_a_page_is_data_and_sections() -> None:
    page = read_page(
        "x", '+++\ntitle = "T"\nfamily = "f"\n+++\n## What you see\na\n\n## How to fix\n1. b\n'
    )
    assert (page.title, page.section("How to fix"), page.section("None")) == ("T", "1. b", "")
