"""What a job asks for; and `cores()`: the number a process may really use, and why."""

import os
import pickle
import subprocess
import sys

import pytest

from fanfold.errors import UsageError
from fanfold.resources import (
    THREAD_VARIABLES,
    Cores,
    Reason,
    Resources,
    blas_threads,
    core_limits,
    cores,
    slurm_node_cpus,
    thread_environment,
)


def limits(environ=None, root="/nowhere", hostname="n1"):
    """Source -> limit, without what this machine itself says."""
    reasons = core_limits(environ or {}, str(root), hostname)
    return {r.source: r.limit for r in reasons if r.source not in ("machine", "affinity", "cgroup")}


def explanation(environ, source, hostname="n1"):
    reasons = core_limits(environ, "/nowhere", hostname)
    return next(reason.explanation for reason in reasons if reason.source == source)


def cgroup(root):
    return next(r for r in core_limits({}, str(root), "n1") if r.source == "cgroup")


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# The number -------------------------------------------------------------------------------------


def test_the_smallest_limit_decides():
    """The number is the smallest limit; what is only a hint never counts."""
    reasons = (Reason("a", 8, ""), Reason("b", 3, ""), Reason("OMP_NUM_THREADS", None, "1"))
    assert Cores(reasons) == 3


def test_cores_is_a_number_that_travels():
    """It works as an int, and a copy sent to another process keeps its reasons."""
    here = cores()
    there = pickle.loads(pickle.dumps(here))
    assert there == here == int(here)
    assert there.reasons == here.reasons
    assert list(range(here)) == list(range(int(here)))


def test_explain_names_what_decides():
    """Every reason is shown on a line, and what decides is marked and named."""
    text = Cores((Reason("machine", 8, "eight"), Reason("NCPUS", 2, "set by PBS"))).explain()
    assert text.splitlines()[0] == "2 cores may be used, because of NCPUS"
    assert [line[0] for line in text.splitlines()[1:]] == [" ", ">"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits():
    """A process bound to one CPU may use one core."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from fanfold.resources import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n"


# Schedulers -------------------------------------------------------------------------------------


def test_a_real_slurm_job():
    """`sbatch -n 2 -c 2`: the node gives 4 cores, the task 2."""
    environ = {"SLURM_CPUS_PER_TASK": "2", "SLURM_JOB_CPUS_PER_NODE": "4", "SLURM_NODEID": "0"}
    assert limits(environ) == {"SLURM_CPUS_PER_TASK": 2, "SLURM_JOB_CPUS_PER_NODE": 4}


@pytest.mark.parametrize(
    ("text", "node", "cpus"),
    [
        ("4", 0, 4),
        ("24(x2)", 1, 24),
        ("24(x2),12", 2, 12),
        ("3,1", 1, 1),
        ("24(x1000000000),12", 1_000_000_000, 12),
        ("3,1", 7, 3),
        ("0", 0, None),
        ("24(x2", 0, None),
        ("many", 0, None),
        ("", 0, None),
    ],
)
def test_cpus_of_a_slurm_node(text, node, cpus):
    """Slurm's list is read at this node's place; an unknown place is the first node's."""
    assert slurm_node_cpus(text, node) == cpus


@pytest.mark.parametrize(("node", "cpus"), [("1", 1), ("x", 3), (None, 3)])
def test_the_node_of_a_slurm_job(node, cpus):
    """SLURM_NODEID says which node this is; without it, it is the first."""
    environ = {"SLURM_JOB_CPUS_PER_NODE": "3,1"}
    if node is not None:
        environ["SLURM_NODEID"] = node
    assert limits(environ) == {"SLURM_JOB_CPUS_PER_NODE": cpus}


def test_a_real_pbs_job(tmp_path):
    """`select=1:ncpus=2`: one line in the node file (an MPI rank), and 2 cores all the same."""
    write(tmp_path, "nodes", "pbshost\n")
    environ = {"NCPUS": "2", "OMP_NUM_THREADS": "2", "PBS_NODEFILE": str(tmp_path / "nodes")}
    assert limits(environ, hostname="pbshost") == {"NCPUS": 2, "OMP_NUM_THREADS": None}


def test_the_node_file_without_ncpus(tmp_path):
    """Where NCPUS is not set, the lines of this host count, by short or full name."""
    write(tmp_path, "nodes", "n1.example.org\nn1\nn2\nN1\n")
    environ = {"PBS_NODEFILE": str(tmp_path / "nodes")}
    assert limits(environ, hostname="n1.example.org") == {"PBS_NODEFILE": 3}


def test_the_node_file_of_another_host(tmp_path):
    """A node file that does not name this host, or cannot be read, is ignored and said."""
    write(tmp_path, "nodes", "n2\n")
    assert "no line of" in explanation({"PBS_NODEFILE": str(tmp_path / "nodes")}, "PBS_NODEFILE")
    assert "cannot read" in explanation({"PBS_NODEFILE": str(tmp_path / "no")}, "PBS_NODEFILE")


@pytest.mark.parametrize(
    "name", ["SLURM_CPUS_PER_TASK", "SLURM_JOB_CPUS_PER_NODE", "NCPUS", "FANFOLD_CORES"]
)
@pytest.mark.parametrize("nonsense", ["", "0", "-1", "two", "1.5", "٣", "9" * 40 + "x"])
def test_nonsense_is_ignored_and_said(name, nonsense):
    """A value that is no positive whole number limits nothing, and the reasons say so."""
    assert limits({name: nonsense}) == {name: None}
    assert explanation({name: nonsense}, name).startswith("ignored: ")


def test_the_share_of_a_worker():
    """FANFOLD_CORES, which a worker sets for what runs inside it, limits."""
    assert limits({"FANFOLD_CORES": "1"}) == {"FANFOLD_CORES": 1}


def test_omp_num_threads_is_a_hint():
    """OMP_NUM_THREADS is shown and does not limit the number of workers."""
    assert limits({"OMP_NUM_THREADS": "1"}) == {"OMP_NUM_THREADS": None}
    assert "no limit" in explanation({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS")


# Control groups ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max 100000\n", None), ("150000 100000\n", 2), ("200000 100000", 2), ("1000 100000", 1)],
)
def test_quota_of_cgroup_v2(tmp_path, text, limit):
    """A quota of CPU time is rounded up to whole cores, and is at least one."""
    write(tmp_path, "proc/self/cgroup", "0::/user.slice/job\n")
    write(tmp_path, "sys/fs/cgroup/user.slice/job/cpu.max", text)
    assert cgroup(tmp_path).limit == limit


def test_every_ancestor_counts(tmp_path):
    """The tightest quota on the way to the root decides, and its group is named."""
    write(tmp_path, "proc/self/cgroup", "0::/a/b/c\n")
    write(tmp_path, "sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "300000 100000\n")
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "800000 100000\n")
    assert cgroup(tmp_path).limit == 3
    assert "(/sys/fs/cgroup/a/b)" in cgroup(tmp_path).explanation


def test_a_group_that_is_not_visible(tmp_path):
    """In a container the group of the host is not there: its mounted ancestor counts."""
    write(tmp_path, "proc/self/cgroup", "0::/../docker/123\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert cgroup(tmp_path).limit == 4


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_quota_of_cgroup_v1(tmp_path, folder):
    """Version 1 keeps quota and period in two files, under either name of the controller."""
    write(tmp_path, "proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/slurm/job\n0::/\n")
    write(tmp_path, f"sys/fs/cgroup/{folder}/slurm/job/cpu.cfs_quota_us", "250000\n")
    write(tmp_path, f"sys/fs/cgroup/{folder}/slurm/job/cpu.cfs_period_us", "100000\n")
    assert cgroup(tmp_path).limit == 3


def test_no_quota_in_cgroup_v1(tmp_path):
    """A quota of -1 means none."""
    write(tmp_path, "proc/self/cgroup", "4:cpu:/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cgroup(tmp_path).limit is None


def test_no_control_groups(tmp_path):
    """Where there are none, or they hold nonsense, nothing limits."""
    assert cgroup(tmp_path).limit is None
    write(tmp_path, "proc/self/cgroup", "nonsense\n\n:::\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "nonsense")
    assert cgroup(tmp_path).limit is None


# Threads of libraries ---------------------------------------------------------------------------


@pytest.mark.parametrize("available", [1, 2, 7, 64])
def test_workers_times_threads_fit(available):
    """Workers times threads stay within the cores, but a worker has at least one thread."""
    for workers in range(1, 2 * available):
        threads = blas_threads(workers, available)
        assert threads == 1 or workers * threads <= available


@pytest.mark.parametrize(
    ("own", "threads", "result"),
    [("2", 4, "2"), ("8", 4, "4"), ("junk", 4, "4"), ("2,4", 2, "2,4"), ("4,2", 2, "2")],
)
def test_a_smaller_setting_of_the_user_is_kept(own, threads, result):
    """The user's own number of threads is kept when smaller, lowered when larger."""
    assert thread_environment(threads, {"MKL_NUM_THREADS": own})["MKL_NUM_THREADS"] == result


def test_every_library_is_held():
    """All the libraries' variables are set."""
    assert thread_environment(3, {}) == dict.fromkeys(THREAD_VARIABLES, "3")


# What a job asks for ------------------------------------------------------------------------------


def test_resources_are_read_in_any_spelling():
    """PBS's, Slurm's and Python's spellings of the same thing are equal."""
    spellings = [
        Resources(cores=4, memory="4GB", walltime="1h30m", mail_events="begin,end"),
        Resources(cores="4", memory="4096mb", walltime="1:30:00", mail_events="begin end"),
        Resources(cores=4, memory=4 << 30, walltime=5400, mail_events=["begin", "end"]),
    ]
    assert len(set(spellings)) == 1


def test_resources_can_be_sent():
    """A pickle gives them back."""
    asked = Resources(2, 8, "1.5gb", gpus=1, walltime="2-12", extra=["--qos=long"])
    assert pickle.loads(pickle.dumps(asked)) == asked


def test_every_wrong_field_is_named_at_once():
    """S20: each with the wrong value and a right one."""
    with pytest.raises(UsageError) as raised:
        Resources(nodes=0, cores="many", memory="4", walltime="90", queue="a b; rm", gpus=-1)
    assert str(raised.value).splitlines() == [
        "nodes: 0 is not a whole number: write 1 or more",
        "cores: 'many' is not a whole number: write 1 or more",
        "memory: '4' is 4 bytes to PBS and 4 megabytes to Slurm: write 4MB or 4GB",
        "gpus: -1 is not a whole number: write 0 or more",
        "walltime: '90' is 90 seconds to PBS and 90 minutes to Slurm: write 90s or 90m",
        "queue: 'a b; rm' is not one word: write it like 'long'",
    ]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("nodes", True, "write 1 or more"),
        ("cores", 1.5, "write 1 or more"),
        ("memory", float("nan"), "write '4GB'"),
        ("memory", [], "write '4GB'"),
        ("walltime", -1, "write '1h30m'"),
        ("walltime", float("inf"), "write '1h30m'"),
        ("queue", "", "write it like 'long'"),
        ("queue", 3, "write it like 'long'"),
        ("account", "-x", "begins with a dash"),
        ("mail", "me@example.org\n#PBS", "write it like 'me@example.org'"),
        ("constraint", "$(x)", "write it like 'haswell'"),
        ("mail_events", "started", "write some of begin, end and abort"),
        ("mail_events", 3, "write some of begin, end and abort"),
        ("extra", "qos", "write options such as"),
        ("extra", ["-l a\n-l b"], "write options such as"),
        ("extra", 3, "no list of directives"),
    ],
)
def test_what_no_job_can_ask_for(field, value, sentence):
    """S20, S21: a value that no scheduler could mean, or that would be more than one directive."""
    with pytest.raises(UsageError, match=sentence) as raised:
        Resources(**{field: value})
    assert str(raised.value).startswith(f"{field}: ")
