"""The GPUs against what the launch and its torch want of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddp_assist.probes.gpu.readings import SEE, Gpus, Visible, visible
from ddp_assist.probes.host.words import brief, counted, several
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Evidence, Finding, Target

NAME = "CUDA_VISIBLE_DEVICES"


def wants(target: Target) -> bool:
    return target.backend == "nccl" or any(plan.nproc == "gpu" for plan in target.plans)


def seen_by(target: Target, plan: LaunchPlan | None, gpus: Gpus) -> Visible | None:
    """None where the variable can't be known before the launch runs."""
    if plan and NAME in plan.unclear:
        return None
    text = (plan.environment(target.env) if plan else target.env).get(NAME)
    return None if text is not None and "$" in text else visible(text, gpus)


def counts(target: Target, gpus: Gpus) -> Iterator[Finding]:
    """What this launch may see; the slices of a GPU can't be ranks of one NCCL job."""
    cut = [index for index, facts in sorted(gpus.devices.items()) if facts.get("mig")]
    told: set[str] = set()
    spans = False
    here: list[LaunchPlan | None] = [plan for plan in target.plans if plan.host is None]
    for plan in here if target.plans else [None]:
        seen = seen_by(target, plan, gpus)
        if seen is None:
            continue
        if seen.wrong is not None and seen.wrong not in told:
            told.add(seen.wrong)
            sentence = (
                f"{NAME} names {seen.wrong}, which is not here"
                if seen.wrong
                else f"{NAME} has an empty place, and CUDA reads no further"
            )
            data = gpus.data(variable=NAME, named=seen.wrong, visible=seen.count)
            yield Finding("gpu", "wrong-visible", sentence, data, (SEE,))
        if plan is None or not wants(target) or plan.option("cpu"):
            continue
        data = gpus.data(visible=seen.count, nproc=plan.nproc)
        if seen.count == 0 and seen.wrong is None and not gpus.lost:
            sentence = f"{NAME} hides all {gpus.count} GPUs, but the launch wants NCCL"
            yield Finding("gpu", "missing", sentence, data, (SEE,))
            continue
        whole = [index for index in seen.indices if index not in cut]
        if not isinstance(plan.nproc, int) or plan.nproc <= len(whole):
            continue
        if cut and plan.nproc > 1:
            spans = True
        elif not cut:
            sentence = f"the launch starts {plan.nproc} ranks for {counted(seen.count, 'GPU')}"
            yield Finding("gpu", "fewer-than-ranks", sentence, data, (SEE,))
    if cut:
        which = several(map(str, cut), 8)
        sentence = f"GPU {which} is cut into MIG slices"
        if spans:
            sentence += ", and the ranks of one NCCL job would have to share them"
        yield Finding("gpu", "mig-spans" if spans else "mig", sentence, gpus.data(cut=cut), (SEE,))


def driver(target: Target, gpus: Gpus) -> Iterator[Finding]:
    """Within one major version of CUDA an older driver serves a newer runtime."""
    for finding in target.found("torch.*"):
        built = brief(str(finding.data.get("cuda") or ""), 20)
        major = built.split(".")[0]
        if gpus.cuda and major.isdecimal() and int(major) > gpus.cuda // 1000:
            knows = f"{gpus.cuda // 1000}.{gpus.cuda % 1000 // 10}"
            sentence = (
                f"driver {gpus.driver} serves CUDA up to {knows}, and torch was built for {built}"
            )
            yield Finding("gpu", "driver-too-old", sentence, gpus.data(cuda=built), (SEE,))
            return


def architecture(target: Target, gpus: Gpus) -> Iterator[Finding]:
    """Machine code serves its own major version from its minor on, PTX everything later."""
    arch = next((f.data["arch"] for f in target.found("torch.*") if f.data.get("arch")), None)
    if not isinstance(arch, list):
        return
    codes = [m for m in (re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", str(a)) for a in arch) if m]
    if not codes:
        return
    for index, facts in sorted(gpus.devices.items()):
        if not facts.get("capability"):
            continue
        has = tuple(facts["capability"])
        served = [(m[1], (int(m[2]), int(m[3]))) for m in codes]
        if not any(c <= has and (kind == "compute" or c[0] == has[0]) for kind, c in served):
            names = several([str(a) for a in arch], 12)
            sentence = f"torch has no code for GPU {index} (sm_{has[0]}{has[1]}), only {names}"
            shown = "import torch; print(torch.cuda.get_arch_list())"
            see = Evidence("torch", (), ("python", "-c", shown))
            yield Finding("gpu", "architecture", sentence, gpus.data(gpu=index), (see,))
            return
