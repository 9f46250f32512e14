"""What ``squeue --json`` prints: every job of everybody, with all that there is of it."""

from __future__ import annotations

import grp
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from fanfold.testing.cluster.site import Site
from fanfold.testing.cluster.slurm.records import Record

__all__ = ["META", "as_json"]

META = {
    "plugin": {"type": "openapi/v0.0.38", "name": "Slurm OpenAPI v0.0.38"},
    "Slurm": {"version": {"major": 22, "micro": 8, "minor": 5}, "release": "22.05.8"},
}
_DOWN = {
    "description": "Failed while looking for jobs",
    "error_number": -1,
    "error": "Unspecified error",
    "source": "slurm_load_jobs",
}
_SHOWN = ["SHOW_ALL", "SHOW_DETAIL", "SHOW_LOCAL"]

# Fields that are the same for every job here, in order; the others are put at their places.
_ORDER = (
    "account accrue_time admin_comment array_job_id array_task_id array_max_tasks "
    "array_task_string association_id=0 batch_features batch_flag=true batch_host flags "
    "burst_buffer burst_buffer_state cluster cluster_features command comment container "
    "contiguous=false core_spec=null thread_spec=null cores_per_socket=null billable_tres "
    "cpus_per_task=null cpu_frequency_minimum=null cpu_frequency_maximum=null "
    "cpu_frequency_governor=null cpus_per_tres deadline=0 delay_boot=0 dependency "
    "derived_exit_code=0 eligible_time end_time excluded_nodes exit_code features "
    "federation_origin federation_siblings_active federation_siblings_viable gres_detail "
    "group_id group_name job_id job_resources job_state last_sched_evaluation licenses max_cpus=0 "
    "max_nodes=0 mcs_label memory_per_tres name nodes nice=null tasks_per_core=null "
    "tasks_per_node=0 tasks_per_socket=null tasks_per_board=0 cpus node_count tasks het_job_id=0 "
    "het_job_id_set het_job_offset=0 partition prefer memory_per_node memory_per_cpu "
    "minimum_cpus_per_node minimum_tmp_disk_per_node=0 preempt_time=0 pre_sus_time=0 priority "
    'profile=null qos="normal" reboot=false required_nodes requeue resize_time=0 restart_cnt '
    "resv_name shared=null show_flags sockets_per_board=0 sockets_per_node=null start_time "
    'state_description state_reason standard_error standard_input="/dev/null" standard_output '
    "submit_time suspend_time=0 system_comment time_limit time_minimum=0 threads_per_core=null "
    "tres_bind tres_freq tres_per_job tres_per_node tres_per_socket tres_per_task tres_req_str "
    "tres_alloc_str user_id user_name wckey current_working_directory"
)


def as_json(site: Site, records: Iterable[Record] | None) -> str:
    """The document; without records, what is printed when the controller is down."""
    errors = [_DOWN] if records is None else []
    jobs = [_job(site, record) for record in records or ()]
    text = json.dumps({"meta": META, "errors": errors, "jobs": jobs}, indent=2)
    text = re.sub(r"^( *)(.*)(\[\]|\{\})(,?)$", _spread, text, flags=re.MULTILINE)
    return text.replace("/", "\\/")


def _spread(match: re.Match[str]) -> str:
    indent, before, empty, after = match.groups()
    return f"{indent}{before}{empty[0]}\n{indent}{empty[1]}{after}"


def _job(site: Site, record: Record) -> dict[str, Any]:
    own = _fields(site, record)
    job = {}
    for word in _ORDER.split():
        name, _, usual = word.partition("=")
        job[name] = own.get(name, json.loads(usual) if usual else "")
    return job


def _fields(site: Site, record: Record) -> dict[str, Any]:
    entry, asked, element = record.entry, record.asked, record.element
    index = record.indices[0] if record.indices and not record.together else None
    at_once = entry.job.at_once or 0
    code, signal = record.status
    tres = f"cpu={asked.cores},mem={record.memory}M,node={asked.nodes},billing={asked.cores}"
    return {
        "account": asked.account,
        "accrue_time": int(entry.since),
        "array_job_id": entry.number if entry.is_array else 0,
        "array_task_id": index,
        "array_max_tasks": at_once,
        "array_task_string": record.tasks if record.together else "",
        "batch_host": record.node,
        "billable_tres": float(asked.cores) if record.node else None,
        "cluster": site.host,
        "command": asked.command,
        "comment": asked.comment,
        "dependency": asked.dependency if record.waits else "",
        "eligible_time": _whole(record.began),
        "end_time": _whole(record.end),
        "exit_code": code << 8 | signal,
        "flags": [],
        "gres_detail": [],
        "group_id": os.getgid(),
        "group_name": grp.getgrgid(os.getgid()).gr_name,
        "job_id": record.raw,
        "job_resources": _resources(record),
        "job_state": record.state,
        "last_sched_evaluation": _whole(record.began or entry.since),
        "name": asked.name,
        "nodes": record.node,
        "cpus": asked.cores,
        "node_count": asked.nodes,
        "tasks": asked.tasks,
        "partition": asked.partition,
        "memory_per_node": None if asked.per_core else asked.memory,
        "memory_per_cpu": asked.memory if asked.per_core else None,
        "minimum_cpus_per_node": asked.cores // asked.tasks,
        "priority": record.priority,
        "requeue": entry.requeue,
        "restart_cnt": element.restarts,
        "show_flags": _SHOWN,
        "start_time": _whole(record.began),
        "state_reason": record.reason,
        "submit_time": _whole(record.submitted),
        "time_limit": asked.limit,
        "tres_req_str": tres,
        "tres_alloc_str": tres if record.node else "",
        "user_id": site.uid,
        "user_name": site.user,
        "current_working_directory": asked.folder,
    }


def _whole(when: float | None) -> int:
    return int(when or 0)


def _resources(record: Record) -> dict[str, Any]:
    if not record.node:
        return {}
    nodes: Sequence[dict[str, Any]] = [
        {
            "nodename": record.node,
            "cpus_used": 0,
            "memory_used": 0,
            "memory_allocated": record.memory,
        }
    ]
    return {
        "nodes": record.node,
        "allocated_cores": record.asked.cores,
        "allocated_hosts": record.asked.nodes,
        "allocated_nodes": nodes,
    }
