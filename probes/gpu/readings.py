"""What NVML told of the GPUs of this host, and which of them a launch may see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ddp_assist.probes.child import Answer
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence

SEE = Evidence("NVML", (), ("nvidia-smi", "-q"))


@dataclass(slots=True)
class Gpus:
    """What the child said before it ended."""

    driver: str | None = None
    cuda: int | None = None
    count: int | None = None
    """None where the driver did not get as far as counting them."""
    devices: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    lost: dict[int, tuple[int, str]] = field(default_factory=dict)
    stuck: dict[int, str] = field(default_factory=dict)
    """The question that a GPU never answered."""
    closed_pairs: list[list[int]] = field(default_factory=list)
    apart: list[list[int]] = field(default_factory=list)

    @property
    def here(self) -> range:
        return range(self.count or 0)

    def data(self, **more: Any) -> dict[str, Any]:
        return {"count": self.count, "driver": self.driver, **more}


def read(answer: Answer) -> Gpus:
    gpus = Gpus()
    for value in answer.values:
        if "driver" in value:
            gpus.driver, gpus.cuda = value["driver"] and brief(value["driver"]), value["cuda"]
            gpus.count = value["count"]
        elif "closed_pairs" in value:
            gpus.closed_pairs, gpus.apart = value["closed_pairs"] or [], value["apart"]
        elif "error" in value:
            gpus.lost[value["index"]] = (value["error"], brief(str(value["said"])))
        else:
            gpus.devices[value["index"]] = value["facts"]
            gone = next((code for code in (15, 16) if code in value["failed"].values()), None)
            if gone:
                said = "GPU is lost" if gone == 15 else "GPU requires reset"
                gpus.lost[value["index"]] = (gone, said)
            if "stuck" in value:
                gpus.stuck[value["index"]] = str(value["stuck"])
    return gpus


@dataclass(frozen=True, slots=True)
class Visible:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs."""

    indices: tuple[int, ...]
    count: int
    wrong: str | None = None
    """The first word that names nothing: CUDA passes over everything from there on."""


def visible(text: str | None, gpus: Gpus) -> Visible:
    usable = [index for index in gpus.here if index not in gpus.lost]
    if text is None:
        return Visible(tuple(usable), len(usable))
    indices: list[int] = []
    slices = 0
    for word in text.split(",") if text.strip() else ():
        word = word.strip()
        if re.fullmatch(r"\+?[0-9]+", word) and len(word) < 9:
            at = int(word) if int(word) in gpus.here else None
        elif word.startswith("MIG-"):
            slices += 1
            continue
        else:
            named = [i for i, facts in gpus.devices.items() if _is(word, facts.get("uuid"))]
            at = named[0] if len(named) == 1 else None
        if at is None:
            # -1 is how one says that no GPU shall be seen, so it is not a mistake.
            wrong = None if re.fullmatch(r"-[0-9]+|NoDevFiles", word) else brief(word, 60)
            return Visible(tuple(indices), len(indices) + slices, wrong)
        indices.append(at)
    return Visible(tuple(indices), len(indices) + slices)


def _is(word: str, uuid: Any) -> bool:
    """A UUID may be cut short, as long as it still begins with GPU-."""
    return word.startswith("GPU-") and len(word) > 4 and str(uuid).lower().startswith(word.lower())
