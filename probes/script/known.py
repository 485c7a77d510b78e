"""The names of torch and its neighbours that mean something to a rank."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

RANK: Final = {
    "RANK",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
    "MV2_COMM_WORLD_RANK",
}
LOCAL_RANK: Final = {
    "LOCAL_RANK",
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
}
WORLD_SIZE: Final = {
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
}
NODE_RANK: Final = {"NODE_RANK", "GROUP_RANK", "SLURM_NODEID"}

_HOST_NAME: Final = (
    "socket.gethostname()", "platform.node()", "os.uname().nodename", "socket.getfqdn()",
)  # fmt: skip
HOST_NAMES: Final = frozenset(kind + of for kind in _HOST_NAME for of in ("", ".split()[]"))
"""What this host is called, or the first part of it."""

COLLECTIVES: Final = {
    "all_reduce",
    "broadcast",
    "reduce",
    "all_gather",
    "gather",
    "scatter",
    "reduce_scatter",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "monitored_barrier",
    "all_gather_object",
    "gather_object",
    "broadcast_object_list",
    "scatter_object_list",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
    "all_reduce_coalesced",
    "all_gather_coalesced",
}

DISTRIBUTED: Final = frozenset(
    COLLECTIVES
    | {
        "all_gather_single", "batch_isend_irecv", "default_pg_timeout", "destroy_process_group",
        "get_backend", "get_backend_config", "get_debug_level", "get_default_backend_for_device",
        "get_global_rank", "get_group_rank", "get_node_local_rank", "get_pg_count",
        "get_process_group_ranks", "get_rank", "get_world_size", "init_device_mesh",
        "init_process_group", "irecv", "is_available", "is_backend_available", "is_gloo_available",
        "is_initialized", "is_mpi_available", "is_nccl_available", "is_torchelastic_launched",
        "is_ucc_available", "is_xccl_available", "isend", "new_group", "new_subgroups",
        "new_subgroups_by_enumeration", "recv", "recv_object_list", "reduce_op",
        "reduce_scatter_single", "register_rendezvous_handler", "rendezvous", "send",
        "send_object_list", "set_debug_level", "shrink_group", "split_group",
        "all_reduce_multigpu", "broadcast_multigpu", "all_gather_multigpu", "reduce_multigpu",
        "reduce_scatter_multigpu", "breakpoint", "supports_complex", "TCPStore", "FileStore",
        "HashStore", "PrefixStore", "Store", "ReduceOp", "Backend", "P2POp", "ProcessGroup",
        "ProcessGroupGloo", "ProcessGroupMPI", "ProcessGroupNCCL", "ProcessGroupUCC",
        "ProcessGroupXCCL", "device_mesh", "DeviceMesh", "DistError", "DistBackendError",
        "DistNetworkError", "DistStoreError",
    }
)  # fmt: skip
"""What torch.distributed has, now or in the versions that are still in use."""

STORES: Final = (
    "torch.distributed.TCPStore",
    "torch.distributed.FileStore",
    "torch.distributed.HashStore",
)
STORE_METHODS: Final = {
    "add",
    "append",
    "barrier",
    "check",
    "clone",
    "compare_set",
    "delete_key",
    "get",
    "has_extended_api",
    "host",
    "libuvBackend",
    "list_keys",
    "multi_get",
    "multi_set",
    "num_keys",
    "path",
    "port",
    "queue_len",
    "queue_pop",
    "queue_push",
    "set",
    "set_timeout",
    "timeout",
    "wait",
    "underlying_store",
}

FRAMEWORKS: Final = {
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "accelerate",
    "transformers",
    "deepspeed",
    "ray",
    "horovod",
    "ignite",
    "composer",
    "fairscale",
    "colossalai",
    "torch_xla",
    "mmengine",
    "mmcv",
    "detectron2",
    "fairseq",
    "monai",
    "torchtitan",
    "torchtune",
    "megatron",
    "trl",
    "catalyst",
    "submitit",
    "hydra",
    "torchx",
    "sagemaker",
    "smdistributed",
    "jax",
    "keras",
    "tensorflow",
    "pippy",
    "oslo",
    "bagua",
    "apex",
    "espnet",
    "espnet2",
    "speechbrain",
    "nemo",
    "mosaicml",
    "determined",
    "parameterized",
}

ALIASES: Final = {
    "dist": "torch.distributed",
    "mp": "torch.multiprocessing",
    "os": "os",
    "sys": "sys",
    "torch": "torch",
    "nn": "torch.nn",
    "DDP": "torch.nn.parallel.DistributedDataParallel",
    "time": "time",
    "socket": "socket",
    "threading": "threading",
    "multiprocessing": "multiprocessing",
    "DistributedDataParallel": "torch.nn.parallel.DistributedDataParallel",
    "datetime": "datetime",
    "timedelta": "datetime.timedelta",
    "np": "numpy",
    "argparse": "argparse",
    "random": "random",
    "F": "torch.nn.functional",
    "json": "json",
    "math": "math",
    "tempfile": "tempfile",
    "io": "io",
    "Path": "pathlib.Path",
    "DataLoader": "torch.utils.data.DataLoader",
    "logging": "logging",
    "DistributedSampler": "torch.utils.data.distributed.DistributedSampler",
    "pickle": "pickle",
    "Dataset": "torch.utils.data.Dataset",
    "TensorDataset": "torch.utils.data.TensorDataset",
    "Process": "multiprocessing.Process",
    "init_process_group": "torch.distributed.init_process_group",
    "TCPStore": "torch.distributed.TCPStore",
    "Lock": "multiprocessing.Lock",
    "shutil": "shutil",
    "signal": "signal",
    "functools": "functools",
    "partial": "functools.partial",
    "re": "re",
    "subprocess": "subprocess",
    "contextlib": "contextlib",
    "copy": "copy",
    "pd": "pandas",
    "optim": "torch.optim",
    "tqdm": "tqdm.tqdm",
    "plt": "matplotlib.pyplot",
    "glob": "glob",
    "itertools": "itertools",
    "collections": "collections",
    "warnings": "warnings",
    "uuid": "uuid",
}
"""What a name nearly always means: so an undefined one says which import it lacks."""

_SAME: Final = {
    "torch.distributed.distributed_c10d.": "torch.distributed.",
    "torch._C._distributed_c10d.": "torch.distributed.",
    "torch.nn.parallel.distributed.": "torch.nn.parallel.",
    "torch.multiprocessing.spawn.spawn": "torch.multiprocessing.spawn",
    "torch.utils.data.dataloader.": "torch.utils.data.",
    "multiprocessing.context.": "multiprocessing.",
    "multiprocessing.synchronize.": "multiprocessing.",
    "multiprocessing.process.": "multiprocessing.",
    "_thread.allocate_lock": "threading.Lock",
}


@lru_cache(4096)
def plain(name: str) -> str:
    """One dotted path for what can be imported from several places."""
    for start, short in _SAME.items():
        if name.startswith(start):
            return short + name[len(start) :]
    return name


def is_process(kind: str) -> bool:
    """`multiprocessing.Process`, torch's, or that of a context."""
    return kind.endswith(".Process") and kind.startswith(
        ("multiprocessing.", "torch.multiprocessing.")
    )


def is_pool(kind: str) -> bool:
    return (
        kind.startswith(("multiprocessing.", "torch.multiprocessing."))
        and kind.endswith(".Pool()")
        or (kind == "concurrent.futures.ProcessPoolExecutor()")
    )


_FREE_PORT: Final = re.compile(
    r"(free|unused|available|open|random|find|pick|get).*port|port.*(free|unused)", re.I
)
_RANDOM: Final = re.compile(
    r"(random|secrets|uuid|numpy\.random|torch\.rand|torch\.randint)\b|os\.(getpid|urandom)$"
    r"|time\.(time|time_ns|monotonic|perf_counter)$|socket\.gethostname$|tempfile\.(mk|Named|Temp)"
)
_ENDS: Final = {"sys.exit", "exit", "quit", "os._exit", "os.abort"}


def is_random(kind: str) -> bool:
    return bool(_RANDOM.match(kind))


def is_free_port(kind: str) -> bool:
    """Whether a function of this name looks for a port."""
    return bool(_FREE_PORT.search(kind.rpartition(".")[2]))


def ends(kind: str) -> bool:
    return kind in _ENDS
