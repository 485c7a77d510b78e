"""The builders that correct a launch command, by the names that pages use."""

from __future__ import annotations

from collections.abc import Mapping

from ddp_assist.app.fixes import launch_meeting as meeting
from ddp_assist.app.fixes import launch_ranks as ranks
from ddp_assist.app.fixes import launch_started as started
from ddp_assist.app.fixes import launch_surroundings as surroundings
from ddp_assist.app.fixes import launch_typed as typed
from ddp_assist.app.fixes.launch_first_rank import first_rank_here
from ddp_assist.app.fixes.model import Builder

BUILDERS: Mapping[str, Builder] = {
    "another-port": meeting.another_port,
    "open-port": meeting.open_port,
    "standalone": meeting.standalone,
    "master-addr": meeting.master_addr,
    "first-rank-here": first_rank_here,
    "endpoint-with-port": meeting.endpoint_with_port,
    "same-rdzv-id": meeting.same_rdzv_id,
    "fresh-rdzv-id": meeting.fresh_rdzv_id,
    "local-addr": meeting.local_addr,
    "is-host": meeting.is_host,
    "init-method-option": meeting.init_method,
    "same-nnodes": ranks.same_nnodes,
    "distinct-node-ranks": ranks.distinct_node_ranks,
    "use-torchrun": ranks.use_torchrun,
    "every-process": ranks.every_process,
    "lower-nproc": ranks.lower_nproc,
    "start-all-ranks": ranks.start_all_ranks,
    "side-by-side": ranks.side_by_side,
    "match-world-size": ranks.match_world_size,
    "ranks-by-task": started.ranks_by_task,
    "srun-on-each-node": started.on_each_node,
    "srun": ranks.with_srun,
    "drop-flag": ranks.drop_flag,
    "rename-option": ranks.rename_option,
    "as-it-was-meant": typed.as_meant,
    "option-that-counts": ranks.option_that_counts,
    "python-m-torchrun": ranks.as_module,
    "use-env": ranks.passes_local_rank,
    "unset-env": surroundings.unset_env,
    "set-env": surroundings.set_env,
    "set-interface": surroundings.set_interface,
    "raise-nofile": surroundings.raise_nofile,
    "setsid": surroundings.setsid,
    "own-store-on-restart": surroundings.own_store_on_restart,
    "export-variable": surroundings.export_variable,
}
