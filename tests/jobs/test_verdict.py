"""What follows from a scene, without processes: thousands of ranks, odd ones, and nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp_assist.probes.host.processes import Process
from ddp_assist.probes.jobs.ranks import Job, Rank
from ddp_assist.probes.jobs.scene import Scene
from ddp_assist.probes.jobs.sentences import folded
from ddp_assist.probes.jobs.stacks import Spot, Stack, read_frames
from ddp_assist.probes.jobs.state import Doing, State, Wires
from ddp_assist.probes.jobs.verdict import OUTCOMES, judge
from ddp_assist.probes.network.sockets import Socket, Traffic

BASE = 4_000_000  # above the largest pid that a kernel gives
STATES: list[State] = [*get_args(State)]


def wires(quiet: float) -> Wires:
    traffic = Traffic(quiet, quiet, 100, 100, 0)
    peer = Socket("established", "127.0.0.1", 41000, "127.0.0.1", 42000, 0, 1, 0, 0, traffic)
    return Wires(peers=(peer,), known=True)


def rank(number: int | None) -> Rank:
    pid = BASE + (number or 0)
    process = Process(pid, 1, 0, "python", "S", pid, pid, 9, 1000 + (number or 0), 1.0, 1)
    return Rank(process, number, number, {})


def scene_of(stacks: list[Stack | None], states: list[State], world: int, quiet: float) -> Scene:
    job = Job("1", None, "env", "127.0.0.1", 29500, world)
    job.ranks = [rank(n) for n in range(len(states))]
    doing = tuple(Doing(r, s, "", wires(quiet)) for r, s in zip(job.ranks, states, strict=True))
    at = {r.process.pid: s for r, s in zip(job.ranks, stacks, strict=True) if s is not None}
    return Scene(job, doing, at)


def waits(op: str, line: int = 20) -> Stack:
    return Stack(f"train.py:{line} in step", op, "collective",
                 spots=(Spot("/nowhere/train.py", line, "step"),))  # fmt: skip


ELSEWHERE = Stack("train.py:12 in step", spots=(Spot("/nowhere/train.py", 12, "step"),))


def test_the_odd_one_of_a_thousand_comes_first() -> None:
    stacks: list[Stack | None] = [waits("all_reduce")] * 1000
    states: list[State] = ["in-collective"] * 1000
    stacks[618], states[618] = ELSEWHERE, "idle"
    scene = scene_of(stacks, states, 1000, 118.0)
    (found,) = judge(scene, still=True)
    assert (found.outcome, found.data["rank"]) == ("behind", 618)
    assert "for 118 s" in found.sentence
    assert "991 more" in found.sentence
    assert [len(same) for _, same in folded(scene)] == [1, 999]
    assert found.evidence[0].lines[0].startswith("rank 618: idle at train.py:12")
    assert len(found.sentence) < 400


def test_what_moves_is_no_hang() -> None:
    scene = scene_of([waits("all_reduce"), ELSEWHERE], ["in-collective", "idle"], 2, 0.1)
    assert {f.outcome for f in judge(scene, still=False)} == {"waits-briefly"}


def test_a_rank_that_works_gets_time() -> None:
    scene = scene_of([waits("barrier"), ELSEWHERE], ["in-collective", "computing"], 2, 7.0)
    assert {f.outcome for f in judge(scene, still=True)} == {"healthy"}
    later = scene_of([waits("barrier"), ELSEWHERE], ["in-collective", "computing"], 2, 70.0)
    assert {f.outcome for f in judge(later, still=True)} == {"busy-alone"}


def test_all_in_one_call_is_told_from_one_that_is_a_turn_behind() -> None:
    same = scene_of([waits("all_reduce")] * 3, ["in-collective"] * 3, 3, 60.0)
    assert {f.outcome for f in judge(same, still=True)} == {"same-call"}
    turns = [replace(waits("all_reduce"), turns={"step": n}) for n in (5, 4, 5)]
    behind = scene_of(list(turns), ["in-collective"] * 3, 3, 60.0)
    (found,) = judge(behind, still=True)
    assert (found.outcome, found.data["rank"]) == ("turns-differ", 1)
    assert "step=4" in found.sentence


def test_ranks_of_other_hosts_are_not_called_missing() -> None:
    scene = scene_of([waits("all_reduce")] * 2, ["in-collective"] * 2, 4, 60.0)
    scene.job.host = "node0"
    (found,) = judge(scene, still=True)
    assert found.outcome == "waits-for-elsewhere"
    assert "rank 2, 3 is on another host" in found.sentence


def test_a_rank_without_a_stack_is_no_basis_for_a_comparison() -> None:
    scene = scene_of([waits("all_reduce"), None], ["in-collective", "in-group"], 2, 60.0)
    assert not any(OUTCOMES[f.outcome] == "bad" for f in judge(scene, still=True))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(STATES),
            st.sampled_from([None, ELSEWHERE, waits("barrier"), waits("all_reduce", 30)]),
        ),
        max_size=12,
    ),
    st.integers(1, 10**9), st.floats(0, 1e6), st.booleans(),
)  # fmt: skip
def test_any_scene_gets_an_answer(
    ranks: list[tuple[State, Stack | None]], world: int, quiet: float, still: bool
) -> None:
    scene = scene_of([s for _, s in ranks], [s for s, _ in ranks], world, quiet)
    found = judge(scene, still)
    assert found
    assert all(f.outcome in OUTCOMES and f.sentence for f in found)


@pytest.mark.parametrize("world", [10**6, 10**9 - 1])
def test_a_world_size_out_of_this_world_costs_nothing(world: int) -> None:
    scene = scene_of([None], ["in-rendezvous"], world, 1.0)
    (found, *_) = judge(scene, still=False)
    assert len(found.data["missing"]) <= 64


def test_who_was_launched_and_is_gone_died_and_did_not_stay_away() -> None:
    scene = scene_of([None, None], ["in-rendezvous"] * 2, 3, 1.0)
    assert [f.outcome for f in judge(scene, still=True)] == ["rank-missing"]
    died = judge(scene, still=True, launched=frozenset({0, 1, 2}))
    assert [f.outcome for f in died] == ["rank-died"]


def test_the_hosts_own_table_tells_how_many_came_from_elsewhere() -> None:
    scene = scene_of([None, None], ["in-rendezvous"] * 2, 4, 1.0)
    scene.job.host = "node0"
    first = replace(scene.doing[0], wires=replace(scene.doing[0].wires, clients=2))
    (found,) = judge(replace(scene, doing=(first, scene.doing[1])), still=True)
    assert (found.outcome, found.data["missing"]) == ("rank-absent", [2, 3])
    assert "2 of 4 joined" in found.sentence


def test_ranks_that_sleep_in_their_own_code_wait_for_nobody() -> None:
    scene = scene_of([ELSEWHERE, ELSEWHERE], ["idle", "idle"], 2, 600.0)
    assert {f.outcome for f in judge(scene, still=True)} == {"healthy"}
    unseen = scene_of([None, None], ["idle", "idle"], 2, 600.0)
    assert {f.outcome for f in judge(unseen, still=True)} == {"meeting"}


SYNC = Stack("train.py:20 in step", "", "sync", spots=(Spot("/nowhere/train.py", 20, "step"),))


def spinning(stacks: list[Stack | None], states: list[State]) -> Scene:
    """Ranks of NCCL: who waits for its GPU uses a core, and nothing goes over sockets."""
    scene = scene_of(stacks, states, len(states), 0.0)
    doing = [
        replace(d, wires=Wires(known=True), nccl=True, cpu=1.0 if d.waits else 0.0, spins=d.waits)
        for d in scene.doing
    ]
    return replace(scene, doing=tuple(doing))


def test_ranks_of_nccl_that_use_a_core_are_not_called_healthy() -> None:
    same = spinning([SYNC] * 4, ["in-collective"] * 4)
    (found,) = judge(same, still=True)
    assert found.outcome == "gpu-wait"
    assert "ranks 0, 1, 2, 3 wait for their GPUs at train.py:20" in found.sentence
    assert "the GPUs have much to do, or a collective does not end" in found.sentence
    assert {f.outcome for f in judge(same, still=False)} == {"waits-briefly"}
    unseen = replace(same, at={}, doing=tuple(
        replace(d, state="computing", spins=False) for d in same.doing))  # fmt: skip
    assert [f.outcome for f in judge(unseen, still=True)] == ["gpu-wait"]


def test_who_stands_elsewhere_while_the_others_wait_for_their_gpus() -> None:
    states: list[State] = ["in-collective", "in-collective", "idle", "in-collective"]
    scene = spinning([SYNC, SYNC, ELSEWHERE, SYNC], states)
    (found,) = judge(scene, still=True)
    assert (found.outcome, found.data["rank"]) == ("behind", 2)
    turns = [replace(SYNC, turns={"step": n}) for n in (7, 7, 6, 7)]
    (late,) = judge(spinning(list(turns), ["in-collective"] * 4), still=True)
    assert (late.outcome, late.data["rank"]) == ("turns-differ", 2)


def test_a_line_that_waits_for_the_gpu_is_told_from_one_that_works(tmp_path: Path) -> None:
    lines = {"total += loss.item()": "sync", "torch.cuda.synchronize()": "sync",
             "x = y.to('cpu')": "sync", "x = model(y)": "", "for k in d.items():": "",
             "import sys, torch": "import"}  # fmt: skip
    script = tmp_path / "train.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    for place, phase in enumerate(lines.values(), 1):
        frame = {"name": "step", "filename": str(script), "line": place}
        assert read_frames([frame]).phase == phase


def test_a_rank_that_torchrun_started_and_that_is_gone_ended_well() -> None:
    """Else torchrun would have ended the others; with plain processes nobody would."""
    scene = scene_of([None, None], ["in-rendezvous"] * 2, 3, 1.0)
    started = [replace(r, env={"TORCHELASTIC_RUN_ID": "none"}) for r in scene.job.ranks]
    for kind in ("before", "after"):
        state: State = "in-rendezvous" if kind == "before" else "in-group"
        scene.job.ranks = [
            replace(r, process=r.process._replace(ppid=77, started=0)) for r in started
        ]
        doing = tuple(replace(d, rank=r, state=state)
                      for d, r in zip(scene.doing, scene.job.ranks, strict=True))  # fmt: skip
        found = {f.outcome for f in judge(replace(scene, doing=doing), still=True)}
        assert ("rank-left-early" if kind == "before" else "rank-left") in found
        assert "rank-missing" not in found


def test_a_rank_that_is_gone_and_never_had_a_number() -> None:
    scene = scene_of([None, waits("barrier")], ["gone", "in-collective"], 2, 60.0)
    nameless = replace(scene.doing[0], rank=replace(scene.doing[0].rank, rank=None))
    scene.job.ranks[0] = nameless.rank
    found = judge(replace(scene, doing=(nameless, scene.doing[1])), still=True)
    assert any("rank ? (pid" in f.sentence for f in found if f.outcome.startswith("rank-left"))
