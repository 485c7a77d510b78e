"""The names of variables that steer PyTorch, its launchers, gloo and NCCL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from os.path import commonprefix

RANKS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_WORLD_SIZE", "NODE_RANK",
)  # fmt: skip
ENDPOINT = ("MASTER_ADDR", "MASTER_PORT")
OPTIONS = (
    "NNODES", "NPROC_PER_NODE", "NODE_RANK", "RDZV_BACKEND", "RDZV_ENDPOINT", "RDZV_ID",
    "RDZV_CONF", "STANDALONE", "MAX_RESTARTS", "MASTER_ADDR", "MASTER_PORT", "LOCAL_ADDR",
)  # fmt: skip
OTHER_OPTIONS = (
    "MONITOR_INTERVAL", "START_METHOD", "ROLE", "MODULE", "NO_PYTHON", "RUN_PATH", "LOG_DIR",
    "REDIRECTS", "TEE", "LOCAL_RANKS_FILTER", "LOGS_SPECS", "EVENT_LOG_HANDLER", "NUMA_BINDING",
    "VIRTUAL_LOCAL_RANK", "SIGNALS_TO_HANDLE", "SHUTDOWN_TIMEOUT", "DUPLICATE_STDOUT_FILTERS",
)  # fmt: skip
DEPRECATED = {
    "NCCL_BLOCKING_WAIT": "TORCH_NCCL_BLOCKING_WAIT",
    "NCCL_ASYNC_ERROR_HANDLING": "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "NCCL_DESYNC_DEBUG": "TORCH_NCCL_DESYNC_DEBUG",
    "NCCL_ENABLE_TIMING": "TORCH_NCCL_ENABLE_TIMING",
    "NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK": "TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK",
}
TORCHELASTIC = (
    "RESTART_COUNT", "MAX_RESTARTS", "RUN_ID", "USE_AGENT_STORE", "ERROR_FILE",
    "ENABLE_FILE_TIMER", "SIGNALS_TO_HANDLE", "LOG_LINE_PREFIX_TEMPLATE", "HEALTH_CHECK_PORT",
    "TIMER_FILE",
)  # fmt: skip
TORCH_NCCL = (
    "ASYNC_ERROR_HANDLING", "BLOCKING_WAIT", "DESYNC_DEBUG", "ENABLE_TIMING",
    "ENABLE_MONITORING", "HEARTBEAT_TIMEOUT_SEC", "DUMP_ON_TIMEOUT", "TRACE_BUFFER_SIZE",
    "TRACE_CPP_STACK", "NAN_CHECK", "DEBUG_INFO_TEMP_FILE", "DEBUG_INFO_PIPE_FILE",
    "WAIT_TIMEOUT_DUMP_MILSEC", "HIGH_PRIORITY", "COORD_CHECK_MILSEC", "PROPAGATE_ERROR",
    "RETHROW_CUDA_ERRORS", "CUDA_EVENT_CACHE", "LOG_CPP_STACK_ON_UNCLEAN_SHUTDOWN",
    "RANKS_PER_ROOT", "USE_COMM_NONBLOCKING", "NONBLOCKING_TIMEOUT", "AVOID_RECORD_STREAMS",
    "USE_TENSOR_REGISTER_ALLOCATOR_HOOK", "SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING",
    "EXTRA_DUMP_ON_EXEC", "BCAST_UNIQUEID", "ENABLE_COLL_TRACE", "CUDA_EVENT_CACHE_DISABLE",
    "NUM_COMM_SPLIT_STREAMS",
)  # fmt: skip
NCCL = (
    "SOCKET_IFNAME", "SOCKET_FAMILY", "SOCKET_RETRY_CNT", "SOCKET_RETRY_SLEEP_MSEC",
    "SOCKET_NTHREADS", "NSOCKS_PERTHREAD", "COMM_ID", "OOB_NET_ENABLE", "OOB_NET_IFNAME",
    "IB_HCA", "IB_DISABLE", "IB_TIMEOUT", "IB_RETRY_CNT", "IB_GID_INDEX", "IB_ADDR_FAMILY",
    "IB_ADDR_RANGE", "IB_ROCE_VERSION_NUM", "IB_SL", "IB_TC", "IB_FIFO_TC", "IB_AR_THRESHOLD",
    "IB_CUDA_SUPPORT", "IB_QPS_PER_CONNECTION", "IB_SPLIT_DATA_ON_QPS",
    "IB_PCI_RELAXED_ORDERING", "IB_ADAPTIVE_ROUTING", "IB_ECE_ENABLE", "IB_MERGE_NICS",
    "IB_MERGE_VFS", "IB_DATA_DIRECT", "IB_USE_INLINE", "IB_PKEY", "IB_WARN_RAIL_LOCAL",
    "IB_RETURN_ASYNC_EVENTS", "NET", "NET_PLUGIN", "NET_GDR_LEVEL", "NET_GDR_READ",
    "NET_GDR_C2C", "NET_SHARED_BUFFERS", "NET_SHARED_COMMS", "NET_FORCE_MERGE", "NET_OVERHEAD",
    "NET_DISABLE_INTRA", "NET_OPTIONAL_RECV_COMPLETION", "TUNER_PLUGIN", "PROFILER_PLUGIN",
    "PROFILE_EVENT_MASK", "TUNER_CONFIG_FILE", "P2P_DISABLE", "P2P_LEVEL", "P2P_DIRECT_DISABLE",
    "P2P_NET_CHUNKSIZE", "P2P_PCI_CHUNKSIZE", "P2P_NVL_CHUNKSIZE", "P2P_PXN_LEVEL",
    "P2P_USE_CUDA_MEMCPY", "P2P_READ_ENABLE", "SHM_DISABLE", "SHM_USE_CUDA_MEMCPY",
    "SHM_LOCALITY", "CUMEM_ENABLE", "CUMEM_HOST_ENABLE", "NVLS_ENABLE", "NVLS_CHUNKSIZE",
    "NVB_DISABLE", "MNNVL_ENABLE", "MNNVL_UUID", "MNNVL_CLIQUE_ID", "MULTI_RANK_GPU_ENABLE",
    "DEBUG", "DEBUG_SUBSYS", "DEBUG_FILE", "DEBUG_TIMESTAMP_FORMAT", "DEBUG_TIMESTAMP_LEVELS",
    "WARN_ENABLE_DEBUG_INFO", "RAS_ENABLE", "RAS_ADDR", "RAS_TIMEOUT_FACTOR", "CONF_FILE",
    "ALGO", "PROTO", "BUFFSIZE", "NTHREADS", "MAX_NCHANNELS", "MIN_NCHANNELS", "MAX_CTAS",
    "MIN_CTAS", "MAX_NRINGS", "MIN_NRINGS", "NCHANNELS_PER_NET_PEER", "NCHANNELS_PER_PEER",
    "MAX_P2P_NCHANNELS", "MIN_P2P_NCHANNELS", "CROSS_NIC", "TOPO_FILE", "TOPO_DUMP_FILE",
    "TOPO_DUMP_FILE_RANK", "GRAPH_FILE", "GRAPH_DUMP_FILE", "IGNORE_CPU_AFFINITY",
    "LAUNCH_MODE", "LAUNCH_ORDER_IMPLICIT", "LAUNCH_RACE_FATAL", "SET_STACK_SIZE",
    "SET_THREAD_NAME", "CGA_CLUSTER_SIZE", "CHECKS_DISABLE", "CHECK_POINTERS", "COLLNET_ENABLE",
    "COLLNET_NODE_THRESHOLD", "COMM_BLOCKING", "COMM_SPLIT_SHARE_RESOURCES", "DMABUF_ENABLE",
    "GDRCOPY_ENABLE", "GDR_FLUSH_DISABLE", "GRAPH_MIXING_SUPPORT", "GRAPH_REGISTER", "HOSTID",
    "LL128_THRESHOLD", "LL_THRESHOLD", "LOCAL_REGISTER", "WIN_ENABLE", "PROGRESS_APPENDOP_FREQ",
    "PROXY_APPEND_BATCH_SIZE", "PROXY_DUMP_SIGNAL", "PXN_DISABLE", "PXN_C2C", "RINGS",
    "SINGLE_RING_THRESHOLD", "TREE_THRESHOLD", "THREAD_THRESHOLDS", "STRICT_ALGO", "SYM_CTAS",
    "SYM_KERNEL", "BLOCKING_WAIT", "RUNTIME_CONNECT", "SETTINGS", "TUNING_FILE", "VERSION",
    "ROOT", "LIB_DIR", "INCLUDE_DIR", "HOME", "UNPACK_THRESHOLD", "ENABLE_TIMING",
    "SINGLE_PROC_MEM_REG_ENABLE", "REPORT_CONNECT_PROGRESS", "NO_CACHE", "CTA_POLICY",
    "GIN_ENABLE", "GIN_TYPE", "DYNAMIC_ALLOC_CE", "ENV_PLUGIN",
)  # fmt: skip
TORCH = (
    "TORCH_DISTRIBUTED_DEBUG", "TORCH_CPP_LOG_LEVEL", "TORCH_DIST_INIT_BARRIER", "TORCH_HOME",
    "TORCH_SHOW_CPP_STACKTRACES", "TORCH_GLOO_LAZY_INIT", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
    "TORCH_ELASTIC_WORKER_IDENTICAL", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "TORCH_LOGS",
    "TORCH_TRACE", "TORCH_WORKER_SERVER_SOCKET", "TORCH_DISTRIBUTED_USE_TORCHCOMMS",
    "TORCH_CUDA_ARCH_LIST", "TORCH_FR_BUFFER_SIZE", "TORCH_FR_CPP_STACK",
    "TORCH_FR_DUMP_TEMP_FILE", "TORCH_EXTENSIONS_DIR", "TORCH_FR_DUMP_DYNAMIC_FILE_NAME",
    "TORCH_INCLUDE_STACK_TRACE", "TORCH_INCLUDE_ONLY_ACTIVE", "TORCH_COMPILE_DEBUG",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_DEVICE_BACKEND_AUTOLOAD", "USE_LIBUV",
    "GLOO_SOCKET_IFNAME", "GLOO_DEVICE_TRANSPORT", "GLOO_LOG_LEVEL", "TP_SOCKET_IFNAME",
    "GLOO_DISABLE_CONNECTION_RETRIES", "GLOO_ENABLE_STORE_V2_API", "OMP_NUM_THREADS",
    "GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER", "GLOO_DEVICE_TRANSPORT_TCP_TLS_PKEY",
    "GLOO_DEVICE_TRANSPORT_TCP_TLS_CERT", "GLOO_DEVICE_TRANSPORT_TCP_TLS_CA_FILE",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_HOME",
    "CUDA_PATH", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VERSION", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_MODULE_LOADING",
    "PYTORCH_CUDA_ALLOC_CONF",
)  # fmt: skip

# Names of other launchers that look like slips of the pen.
OTHERS = ("GLOBAL_RANK", "GLOBAL_WORLD_SIZE", "ROLE_NAME", "HOST_RANK", "MACHINE_RANK")

LAUNCH = frozenset((*RANKS, *ENDPOINT))
KNOWN: frozenset[str] = frozenset(
    (
        *LAUNCH,
        *OTHERS,
        *TORCH,
        *DEPRECATED,
        *(f"PET_{name}" for name in (*OPTIONS, *OTHER_OPTIONS)),
        *(f"TORCHELASTIC_{name}" for name in TORCHELASTIC),
        *(f"TORCH_NCCL_{name}" for name in TORCH_NCCL),
        *(f"NCCL_{name}" for name in NCCL),
    )
)
# What somebody easily takes for the name; too far from it to be found by counting letters.
MEANT = {
    "MASTER_ADDRESS": "MASTER_ADDR",
    "WORLDSIZE": "WORLD_SIZE",
    "GLOO_IFNAME": "GLOO_SOCKET_IFNAME",
    "NCCL_IFNAME": "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_INTERFACE": "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_INTERFACE": "NCCL_SOCKET_IFNAME",
}
RELEVANT = re.compile(
    r"^(PET|TORCHELASTIC|TORCH|NCCL|GLOO|SLURM|OMPI_COMM_WORLD|OMPI_MCA_orte|PMI|PMIX|MV2_COMM_WORLD)_"
)


def matters(name: str) -> bool:
    """Whether a variable can steer a distributed start."""
    return name in KNOWN or name in MEANT or bool(RELEVANT.match(name))


def distance(one: str, other: str, most: int = 64) -> int:
    """Letters added, lost, changed or swapped with their neighbour, counted up to `most`."""
    shared = len(commonprefix((one, other)))
    # The last shared letter stays: it may be half of a swap.
    one, other = one[max(0, shared - 1) :], other[max(0, shared - 1) :]
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, older[j - 2] + 1)
            row.append(best)
        if min(row) > most and (not before or min(before) > most):
            return most + 1
    return row[-1]


@lru_cache(maxsize=4096)
def meant(name: str) -> str | None:
    """The real name that this unknown one was probably meant to be."""
    if name in KNOWN or not 4 <= len(name) <= 64:
        return None
    upper = name.upper().replace("-", "_")
    if upper in MEANT or upper in KNOWN:
        return MEANT.get(upper, upper)
    allowed = 2 if len(upper) >= 9 else 1
    near = (
        (distance(upper, known, allowed), known)
        for known in KNOWN
        if abs(len(known) - len(upper)) <= allowed and len(known) >= 8
    )
    best = min((n for n in near if n[0] <= allowed), default=None)
    if best is None:
        return None
    # Two letters are much among names like NCCL_IB_SL and NCCL_IB_TC, which differ by so many.
    crowded = upper.startswith("NCCL_") and best[0] > 1 and len(best[1]) < 16
    return None if crowded else best[1]


def typos(names: Iterable[str]) -> dict[str, str]:
    """Unknown names that are close to a known one, with what was meant."""
    close = re.compile(r"MASTER|WORLD|RANK|NCCL|GLOO|CUDA|TORCH|PET_|LIBUV|[_-]SIZE", re.I)
    foreign = (
        "SLURM",
        "OMPI",
        "PMI",
        "MV2",
        "CONDA",
        "DEEPSPEED",
        "ACCELERATE",
        "FI_",
        "UCX",
        "HF_",
    )
    unknown = (
        name
        for name in names
        if name not in KNOWN
        and name.isprintable()
        and close.search(name)
        and not name.startswith(foreign)
    )
    return {name: real for name in islice(unknown, MOST) if (real := meant(name))}


MOST = 200
"""So many unknown names are compared; nobody but an attacker has more."""
