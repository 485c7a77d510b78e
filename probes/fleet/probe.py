"""What the comparison of nodes can say. It is asked for by the `fleet` verb, never in passing."""

from __future__ import annotations

from ddp_assist.probes.model import Probe

FLEET = Probe(
    "fleet",
    "Are the nodes alike, and do they reach each other?",
    {
        "alike": "ok",
        "trial-joined": "ok",
        "torch-parts-them": "bad",
        "torch-differs": "bad",
        "nccl-differs": "bad",
        "module-missing": "bad",
        "nccl-env-differs": "bad",
        "nnodes-disagree": "bad",
        "node-rank-duplicated": "bad",
        "node-rank-out-of-range": "bad",
        "rdzv-id-differs": "bad",
        "firewall-blocks-port": "bad",
        "firewall-blocks-data": "bad",
        "mtu-black-hole": "bad",
        "unreachable": "bad",
        "torch-differs-and-meets": "info",
        "cuda-differs": "info",
        "trial-failed": "info",
        "culprit-node": "info",
        "culprit-link": "info",
        "master-differs": "bad",
        "master-elsewhere": "bad",
        "port-differs": "bad",
        "interface-wrong": "bad",
        "name-differs": "info",
        "env-differs": "info",
        "gpus-differ": "info",
        "limits-differ": "info",
        "link-differs": "info",
        "python-differs": "info",
        "machine-differs": "info",
        "time-offset": "info",
        "interface-unreachable": "info",
        "coverage": "info",
    },
    lambda target: (),
    applies=lambda target: False,
)
PROBES: tuple[Probe, ...] = (FLEET,)
