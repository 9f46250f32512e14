"""ff.dask_cluster: what it asks the scheduler for, and what it refuses. See also tests/slurm."""

import subprocess
import sys
import warnings
from importlib.util import find_spec

import pytest

import fanfold as ff

# Not imported: it takes Ctrl-C for itself, and cannot be imported by the threads of a worker.
if find_spec("dask_jobqueue") is None:
    pytest.skip("dask-jobqueue is not installed here", allow_module_level=True)

ASKED = ff.Resources(
    cores=4, memory="8GB", walltime="1h30m", queue="long", account="physics", extra=["--exclusive"]
)


@pytest.fixture(autouse=True)
def _quiet():
    """Another Dask on this machine may have the dashboard's usual port."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def lines(cluster, prefix):
    return [line for line in cluster.job_script().splitlines() if line.startswith(prefix)]


def test_slurm_script_asks_for_the_resources():
    """The directives are those of every job of fanfold with these resources, extras included."""
    with ff.dask_cluster("slurm", ASKED, name="waves") as cluster:
        assert lines(cluster, "#SBATCH") == [
            "#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G",
            "#SBATCH --time=01:30:00",
            "#SBATCH --partition=long",
            "#SBATCH --account=physics",
            "#SBATCH --exclusive",
            "#SBATCH --job-name=waves",
        ]


def test_pbs_script_asks_for_the_resources():
    """The same in the words of PBS."""
    asked = ASKED._replace(extra=())
    with ff.dask_cluster("pbs", asked, log_directory="/logs") as cluster:
        assert lines(cluster, "#PBS") == [
            "#PBS -l select=1:ncpus=4:mem=8gb",
            "#PBS -l walltime=01:30:00",
            "#PBS -q long",
            "#PBS -P physics",
            "#PBS -N dask",
            "#PBS -o /logs/",
            "#PBS -e /logs/",
        ]


@pytest.mark.parametrize(("gpus", "expected"), [(0, (4, 1, "2.00GiB")), (2, (1, 4, "8.00GiB"))])
def test_workers_share_a_job(gpus, expected):
    """A worker for each core, so that a task that dies is alone; one for all where there are GPUs.

    They share the memory that the job asks for.
    """
    with ff.dask_cluster("slurm", ASKED._replace(gpus=gpus)) as cluster:
        words = cluster.job_script().split()
    workers, threads, memory = expected
    assert words[words.index("--nthreads") + 1] == str(threads)
    assert words[words.index("--memory-limit") + 1] == memory
    count = words[words.index("--nworkers") + 1] if "--nworkers" in words else "1"
    assert count == str(workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resources": None}, r"say what each job asks for: resources=ff.Resources\("),
        ({"resources": ff.Resources(cores=4)}, "divides the memory of a job"),
        ({"resources": ff.Resources(nodes=3, memory="1GB")}, "ask for jobs=3 of nodes=1"),
        ({"on": "lsf"}, "on= takes 'slurm' or 'pbs', not 'lsf'"),
        ({"jobs": 2, "cores": 8}, "say one of jobs, cores and memory, not jobs and cores"),
        ({"jobs": 0}, "jobs must be a whole number from 1, not 0"),
        ({"cores": True}, "cores must be a whole number from 1, not True"),
        ({"memory": "much"}, "much"),
        ({"adaptive": True}, "adaptive=True needs a limit"),
    ],
)
def test_what_is_refused(options, message):
    """What cannot be asked for is told with what could be, before anything starts."""
    with pytest.raises(ff.UsageError, match=message):
        ff.dask_cluster(**{"on": "slurm", "resources": ASKED, **options})


def test_interrupts_stay_what_they_are():
    """dask-jobqueue exits at Ctrl-C from when it is imported: not where fanfold imports it."""
    code = (
        "import signal, fanfold as ff; before = signal.getsignal(signal.SIGINT); "
        "from fanfold.dask_jobs import _jobqueue; _jobqueue(); "
        "print(signal.getsignal(signal.SIGINT) is before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
