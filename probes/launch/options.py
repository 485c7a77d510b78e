"""The options of the launchers, and how a command line is cut into them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddp_assist.probes.launch.expand import Field
from ddp_assist.probes.launch.plan import Option, Span


@dataclass(frozen=True, slots=True)
class Table:
    """Which options take a value (`values`), which do not (`flags`), and other names for them."""

    values: frozenset[str]
    flags: frozenset[str]
    also: Mapping[str, str] = field(default_factory=dict)
    pairs: frozenset[str] = frozenset()
    """Options that take two words."""
    attached: bool = True
    """Whether a one-letter option may have its value stuck to it: `-N2`."""

    def known(self, name: str) -> str | None:
        """The canonical name, also for an unambiguous beginning, as argparse takes it."""
        name = self.also.get(name, name)
        every = self.values | self.flags | self.pairs
        if name in every:
            return name
        begun = [n for n in every if n.startswith(name)] if len(name) > 2 else []
        return begun[0] if len(begun) == 1 else None


def table(values: str, flags: str, pairs: str = "", *, attached: bool = True, **also: str) -> Table:
    several = [frozenset(names.split()) for names in (values, flags, pairs)]
    names = {short.replace("_", "-"): name for short, name in also.items()}
    return Table(several[0], several[1], names, several[2], attached)


TORCHRUN = table(
    "nnodes nproc-per-node rdzv-backend rdzv-endpoint rdzv-id rdzv-conf max-restarts"
    " monitor-interval start-method event-log-handler role log-dir redirects tee"
    " local-ranks-filter duplicate-stdout-filters duplicate-stderr-filters node-rank master-addr"
    " master-port local-addr logs-specs numa-binding signals-to-handle shutdown-timeout",
    "standalone module no-python run-path virtual-local-rank help use-env",
    m="module", r="redirects", t="tee", h="help",
)  # fmt: skip
ACCELERATE = table(
    "aws-access-key-id aws-secret-access-key config-file deepspeed-config-file"
    " deepspeed-exclusion-filter deepspeed-hostfile deepspeed-inclusion-filter"
    " deepspeed-moe-layer-cls-names deepspeed-multinode-launcher dynamo-backend dynamo-mode env"
    " fp8-amax-compute-algo fp8-amax-history-len fp8-backend fp8-enable-fsdp-float8-all-gather"
    " fp8-format fp8-interval fp8-margin fp8-opt-level fp8-override-linear-precision"
    " fp8-pad-inner-dim fsdp-activation-checkpointing fsdp-activation-checkpointing-offload"
    " fsdp-auto-wrap-policy fsdp-backward-prefetch fsdp-cpu-ram-efficient-loading"
    " fsdp-forward-prefetch fsdp-min-num-params fsdp-offload-params fsdp-reshard-after-forward"
    " fsdp-sharding-strategy fsdp-state-dict-type fsdp-sync-module-states"
    " fsdp-transformer-layer-cls-to-wrap fsdp-use-orig-params fsdp-version gpu-ids"
    " gradient-accumulation-steps gradient-clipping log-dir machine-rank main-process-ip"
    " main-process-port main-training-function max-restarts megatron-lm-attention-backend"
    " megatron-lm-attention-dropout megatron-lm-attention-softmax-in-fp32"
    " megatron-lm-calculate-per-token-loss megatron-lm-context-parallel-size"
    " megatron-lm-decoder-last-pipeline-num-layers megatron-lm-eod-mask-loss"
    " megatron-lm-expert-model-parallel-size megatron-lm-expert-tensor-parallel-size"
    " megatron-lm-gradient-clipping megatron-lm-hidden-dropout megatron-lm-no-load-optim"
    " megatron-lm-no-save-optim megatron-lm-num-micro-batches megatron-lm-optimizer-cpu-offload"
    " megatron-lm-overlap-cpu-optimizer-d2h-h2d megatron-lm-pp-degree"
    " megatron-lm-recompute-activations megatron-lm-recompute-granularity"
    " megatron-lm-recompute-method megatron-lm-recompute-num-layers"
    " megatron-lm-sequence-parallelism megatron-lm-tp-degree megatron-lm-use-custom-fsdp"
    " megatron-lm-use-distributed-optimizer megatron-lm-use-precision-aware-optimizer"
    " megatron-lm-use-rotary-position-embeddings mixed-precision monitor-interval mpirun-ccl"
    " mpirun-hostfile num-cpu-threads-per-process num-machines num-processes"
    " offload-optimizer-device offload-optimizer-nvme-path offload-param-device"
    " offload-param-nvme-path parallelism-config-cp-backend parallelism-config-cp-comm-strategy"
    " parallelism-config-cp-size parallelism-config-dp-replicate-size"
    " parallelism-config-dp-shard-size parallelism-config-sp-attn-implementation"
    " parallelism-config-sp-backend parallelism-config-sp-seq-length"
    " parallelism-config-sp-seq-length-is-variable parallelism-config-sp-size"
    " parallelism-config-tp-size rdzv-backend rdzv-conf role tee vm zero-stage zero3-init-flag"
    " zero3-save-16bit-model",
    "cpu debug downcast-bf16 dynamo-use-dynamic dynamo-use-fullgraph"
    " dynamo-use-regional-compilation enable-cpu-affinity fp8-use-autocast-during-eval help ipex"
    " module mps multi-gpu no-python no-tpu-cluster quiet same-network tpu tpu-cluster"
    " tpu-use-sudo use-deepspeed use-fsdp use-megatron-lm use-parallelism-config use-xpu",
    m="module", q="quiet", h="help", t="tee",
)  # fmt: skip
DEEPSPEED = table(
    "log-level"
    " hostfile include exclude num-nodes min-elastic-nodes max-elastic-nodes num-gpus node-rank"
    " master-addr master-port ssh-port launcher launcher-args autotuning bind-core-list venv-script"
    " save-pid-path enable-each-rank-log",
    "module no-python no-local-rank no-ssh save-pid force-multi elastic-training bind-cores-to-rank"
    " no-ssh-check quiet help",
    H="hostfile", i="include", e="exclude", p="ssh-port", q="quiet", h="help",
    num_accelerators="num-gpus", attached=False,
)  # fmt: skip
SRUN = table(
    "nodes ntasks cpus-per-task partition time account job-name nodelist exclude output error input"
    " gpus gpus-per-node gpus-per-task gpus-per-socket ntasks-per-node ntasks-per-gpu"
    " ntasks-per-socket gres mem mem-per-cpu mem-per-gpu chdir distribution mpi export qos"
    " constraint reservation jobid kill-on-bad-exit relative signal cpu-bind mem-bind gpu-bind"
    " threads-per-core comment container-image container-mounts container-workdir container-name"
    " het-group begin dependency array mail-type mail-user network tmp wait nice priority wckey"
    " switches hint multi-prog-file",
    "unbuffered label overlap exclusive exact verbose quiet pty container-mount-home"
    " no-container-mount-home container-writable no-kill immediate spread-job overcommit requeue"
    " no-requeue help share oversubscribe multi-prog whole contiguous use-min-nodes hold",
    N="nodes", n="ntasks", c="cpus-per-task", p="partition", t="time", A="account", J="job-name",
    w="nodelist", x="exclude", o="output", e="error", i="input", G="gpus", D="chdir",
    m="distribution", q="qos", C="constraint", r="relative", W="wait", d="dependency", a="array",
    u="unbuffered", l="label", v="verbose", Q="quiet", k="no-kill", s="share", H="hold",
    O="overcommit",
)  # fmt: skip
SBATCH = replace(
    SRUN,
    values=SRUN.values - {"wait"} | {"wrap", "clusters", "export-file", "cluster-constraint"},
    flags=SRUN.flags | {"wait", "parsable", "test-only", "ignore-pbs", "get-user-env"},
    also={**SRUN.also, "M": "clusters"},
)
MPIRUN = table(
    "n host hostfile map-by bind-to rank-by x wdir output-filename path prefix npernode ppn"
    " report-uri timeout app host-list iface bootstrap launcher hosts rankfile N envlist rf f env"
    " genvlist genvnone pernode-count stdin xterm",
    "allow-run-as-root oversubscribe tag-output bind-to-none report-bindings verbose v q quiet"
    " display-map display-allocation nooversubscribe nolocal pernode bynode byslot bycore genvall l"
    " merge-stderr-to-stdout timestamp-output do-not-launch help",
    "mca genv gmca pmixmca prtemca", attached=False,
    np="n", c="n", H="host", machinefile="hostfile", wd="wdir", hosts="host",
)  # fmt: skip
LIGHTNING = table(
    "accelerator strategy devices num-nodes node-rank main-address main-port precision",
    "help",
)  # fmt: skip
COMPOSER = table(
    "nproc world-size base-rank node-rank master-addr master-port stdout stderr",
    "module-mode command-mode verbose help",
    n="nproc", m="module-mode", c="command-mode", v="verbose", attached=False,
)  # fmt: skip
COLOSSALAI = table(
    "hostfile host include exclude num-nodes nproc-per-node master-port master-addr ssh-port"
    " extra-launch-args",
    "module help",
    m="module", H="host", attached=False,
)  # fmt: skip
PYTHON_VALUES, PYTHON_FLAGS = frozenset("WXQ"), frozenset("bBdEhiIOPqsSuvVx")


def cut(words: Sequence[Field], i: int, known: Table) -> tuple[list[Option], list[Field], int]:
    """Options from `words[i]` on, words among them that are not understood, where it goes on."""
    options: list[Option] = []
    strange: list[Field] = []
    while i < len(words):
        word = words[i]
        text = word.text
        if text == "--" and word.known:
            return options, strange, i + 1
        if not word.known and not text.startswith("-"):
            after = words[i + 1] if i + 1 < len(words) else None
            if after is None or (after.text.startswith("-") and not _named(after, known)):
                break
            strange.append(word)
            i += 1
            continue
        if not text.startswith("-") or text == "-":
            break
        option, taken = _option(words, i, known)
        options.append(option)
        if not option.known:
            strange += words[i : i + taken]
        i += taken
    return options, strange, i


def _named(word: Field, known: Table) -> bool:
    return known.known(_canonical(word.text.partition("=")[0])) is not None


def _canonical(spelling: str) -> str:
    return spelling.lstrip("-").replace("_", "-")


def _option(words: Sequence[Field], i: int, known: Table) -> tuple[Option, int]:
    """The option at `words[i]`, and how many words it takes."""
    word = words[i]
    spelling, equals, _ = word.text.partition("=")
    name = known.known(_canonical(spelling))
    canonical = name or _canonical(spelling)
    if name is None and known.attached and re.fullmatch(r"-[A-Za-z][^-=].*", word.text):
        short = known.also.get(word.text[1])
        if short in known.values:
            return _valued(short, word.text[:2], word, 2, word.span), 1
        letters = [known.also.get(letter) for letter in word.text[1:]]
        if all(letter in known.flags for letter in letters):
            return Option(str(letters[0]), None, spelling, word.span), 1
    if equals:
        option = _valued(canonical, spelling, word, len(spelling) + 1, word.span)
        return replace(option, known=name is not None), 1
    if name in known.pairs and i + 2 < len(words):
        pair = f"{words[i + 1].text}={words[i + 2].text}"
        return Option(canonical, pair, spelling, (word.span[0], words[i + 2].span[1])), 3
    takes = name in known.values
    if name is None:
        after = words[i + 1].text if i + 1 < len(words) else "-"
        takes = not after.startswith("-") and not re.search(r"\.(py|sh)$|^\w+\.\w+", after)
    if takes and i + 1 < len(words):
        after_word = words[i + 1]
        span = (word.span[0], after_word.span[1])
        option = _valued(
            canonical, spelling, after_word, 0, span if span[0] < span[1] else word.span
        )
        return replace(option, known=name is not None), 2
    return Option(canonical, None, spelling, word.span, known=name is not None), 1


def _valued(name: str, spelling: str, word: Field, start: int, span: Span) -> Option:
    """An option whose value begins at `start` of a word."""
    if not word.known:
        return Option(name, None, spelling, span, word.value.cut(start, len(word.text)).span())
    value = word.value.cut(start, len(word.text))
    end = (word.span[1], word.span[1])
    where = value.span() or (end if not value.text else word.span if start == 0 else None)
    return Option(name, value.text, spelling, span, where, places=value.places)
