"""GPUs: which a process may use, and that each worker sees its own. No GPU is needed for any of it.

The programs and files that tell of devices are stand-ins, of the form that the real ones have.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.runs.small import Site, site_in

import fanfold as ff
from fanfold import devices as module
from fanfold.devices import Devices, devices, gpus_each
from fanfold.testing.functions import until

SCHEDULER = ("SLURM_JOB_ID", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "PBS_JOBID", "PBS_GPUFILE")
VISIBLE = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
)
FOUR = "".join(f"GPU {n}: NVIDIA H200 (UUID: GPU-{n}{n}{n}{n}-ab)\n" for n in range(4))
SPLIT = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0000-ab)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa-01)
  MIG 1g.5gb      Device  1: (UUID: MIG-bbbb-02)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1111-ab)
"""


def names(found: Devices, variable: str = "CUDA_VISIBLE_DEVICES") -> list[str]:
    return [device[variable] for device in found.each]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which nobody says anything of GPUs."""
    for name in (*SCHEDULER, *VISIBLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nvidia_smi(
    tmp_path: Path, bare: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, str]]:
    """Puts an ``nvidia-smi`` on the path that prints a text; returns an environment with it."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(text: str) -> dict[str, str]:
        (folder / "list").write_text(text)
        program = folder / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat {folder}/list\n')
        program.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        return {"PATH": path}

    return install


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., str]:
    """Makes the files of a machine, and returns its root."""

    def make(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "root")

    return make


# What the environment says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("0,1", ["0", "1"]),
        ("3, 1", ["3", "1"]),
        ("GPU-8932f937,GPU-11aa", ["GPU-8932f937", "GPU-11aa"]),
        ("MIG-aaaa-01,MIG-GPU-8932/1/0", ["MIG-aaaa-01", "MIG-GPU-8932/1/0"]),
        ("0,2,-1,1", ["0", "2"]),
        ("2,2,5", ["2", "5"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_names_stay_as_they_are(said: str, expected: list[str]) -> None:
    """What is visible is taken by the names it has, in its order; the first that is no device ends
    the list, as it does for CUDA."""
    assert names(devices({"CUDA_VISIBLE_DEVICES": said})) == expected


def test_rocm_is_divided_where_it_is_narrowest() -> None:
    """HIP_VISIBLE_DEVICES counts among what ROCR_VISIBLE_DEVICES leaves: where both are set only
    the inner one is divided, and the outer stays."""
    rocr = {"ROCR_VISIBLE_DEVICES": "2,3"}
    assert names(devices(rocr), "ROCR_VISIBLE_DEVICES") == ["2", "3"]
    both = devices({**rocr, "HIP_VISIBLE_DEVICES": "0,1"})
    assert both.each == ({"HIP_VISIBLE_DEVICES": "0"}, {"HIP_VISIBLE_DEVICES": "1"})


def test_level_zero() -> None:
    """ZE_AFFINITY_MASK names devices and their tiles; Slurm sets it beside CUDA's variable, and
    then both are divided."""
    assert names(devices({"ZE_AFFINITY_MASK": "0.0,0.1"}), "ZE_AFFINITY_MASK") == ["0.0", "0.1"]
    both = devices({"ZE_AFFINITY_MASK": "4,5", "CUDA_VISIBLE_DEVICES": "4,5"})
    assert [sorted(device.values()) for device in both.each] == [["4", "4"], ["5", "5"]]


def test_variables_that_contradict() -> None:
    """Of variables that show different numbers of devices none is believed."""
    with pytest.raises(ff.UsageError, match="CUDA_VISIBLE_DEVICES=0 and ZE_AFFINITY_MASK=0,1"):
        devices({"ZE_AFFINITY_MASK": "0,1", "CUDA_VISIBLE_DEVICES": "0"})


# What the driver shows ----------------------------------------------------------------------------


def test_found_by_nvidia_smi(nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """Where nothing is said all devices count, by UUID: CUDA has an order of its own."""
    assert names(devices(nvidia_smi(FOUR)))[:2] == ["GPU-0000-ab", "GPU-1111-ab"]


def test_found_mig(nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """A GPU that is split is used by its parts, each a device."""
    assert names(devices(nvidia_smi(SPLIT))) == ["MIG-aaaa-01", "MIG-bbbb-02", "GPU-1111-ab"]


def test_nvidia_smi_that_fails_or_hangs(
    tmp_path: Path,
    nvidia_smi: Callable[[str], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that prints nonsense finds nothing; one that hangs is not waited for."""
    environ = nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the driver\n")
    assert devices(environ, root=str(tmp_path)).each == ()
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    assert devices(environ, root=str(tmp_path)).each == ()


def test_found_in_proc(machine: Callable[..., str]) -> None:
    """Without nvidia-smi the driver's own files tell the UUIDs; indices, where one of them has not
    been read yet by the driver."""
    folder = "proc/driver/nvidia/gpus"
    first = {f"{folder}/0000:17:00.0/information": "Model: H200\nGPU UUID: \t GPU-17aa-01\n"}
    root = machine({**first, f"{folder}/0000:65:00.0/information": "GPU UUID: GPU-65bb-02\n"})
    assert names(devices({"PATH": ""}, root)) == ["GPU-17aa-01", "GPU-65bb-02"]
    machine({f"{folder}/0000:65:00.0/information": "GPU UUID: GPU-????????-????\n"})
    assert names(devices({"PATH": ""}, root)) == ["0", "1"]


def test_found_amd(machine: Callable[..., str]) -> None:
    """The nodes of AMD's driver are the processors too: those that compute in lanes are GPUs."""
    nodes = "sys/class/kfd/kfd/topology/nodes"
    root = machine(
        {f"{nodes}/{n}/properties": f"cpu_cores_count 0\nsimd_count {c}\n" for n, c in
         enumerate((0, 304, 304))}
    )  # fmt: skip
    assert names(devices({"PATH": ""}, root), "ROCR_VISIBLE_DEVICES") == ["0", "1"]


def test_none(tmp_path: Path) -> None:
    """Where there is no GPU a worker cannot have one: the message says what was looked at."""
    none = devices({"PATH": ""}, str(tmp_path))
    with pytest.raises(
        ff.UsageError,
        match=r"a worker needs 1 GPU, and this process may use 0 "
        r"\(CUDA_VISIBLE_DEVICES is not set, and no driver shows any\): leave gpus= out",
    ):
        none.shares(None)


# What a scheduler gave ----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"])
def test_slurm_without_a_fence(variable: str, nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """Slurm's indices are those of the node: of all devices that are seen, only these are used."""
    environ = {**nvidia_smi(FOUR), variable: "1,3", "SLURM_JOB_ID": "7"}
    assert names(devices(environ)) == ["GPU-1111-ab", "GPU-3333-ab"]


def test_slurm_with_a_fence(nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """Where a fence shows the job's own devices alone, they are numbered from 0, and Slurm's
    indices say nothing of them."""
    two = "".join(FOUR.splitlines(keepends=True)[2:])
    environ = {**nvidia_smi(two), "SLURM_STEP_GPUS": "2,3"}
    assert names(devices(environ)) == ["GPU-2222-ab", "GPU-3333-ab"]
    assert names(devices({**environ, "CUDA_VISIBLE_DEVICES": "0,1"})) == ["0", "1"]


def test_the_step_has_less_than_the_job() -> None:
    """What the step was given counts, not what the job was."""
    given = {"SLURM_JOB_GPUS": "0-3", "SLURM_STEP_GPUS": "2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert names(devices({**given, "PATH": ""})) == ["2"]


def test_pbs(tmp_path: Path) -> None:
    """The file of PBS names the GPUs of all nodes: those of this node count."""
    file = tmp_path / "gpus"
    file.write_text("n1-gpu0\nn2-gpu1\nn2-gpu3\n")
    found = devices({"PATH": "", "PBS_GPUFILE": str(file)}, str(tmp_path), hostname="n2.site.org")
    assert names(found) == ["1", "3"]


def test_more_visible_than_given(nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """A profile that shows every GPU of a node does not take those of others: what was given is
    used, by whatever name it goes; and where nothing of it is visible that is an error."""
    environ = {**nvidia_smi(FOUR), "SLURM_JOB_GPUS": "2"}
    assert names(devices({**environ, "CUDA_VISIBLE_DEVICES": "0,1,2,3"})) == ["2"]
    everything = "GPU-1111-ab,GPU-2222-ab"
    assert names(devices({**environ, "CUDA_VISIBLE_DEVICES": everything})) == ["GPU-2222-ab"]
    with pytest.raises(
        ff.UsageError, match=r"shows 2 GPUs, and the job was given 1 .*none of them"
    ):
        devices({**environ, "CUDA_VISIBLE_DEVICES": "0,1"})


def test_a_job_that_nobody_tells(nvidia_smi: Callable[[str], dict[str, str]]) -> None:
    """In a job that sees several GPUs, and is not told which are its own, none is guessed."""
    environ = {**nvidia_smi(FOUR), "PBS_JOBID": "7.pbs"}
    with pytest.raises(ff.UsageError, match=r"4 GPUs here.*export CUDA_VISIBLE_DEVICES"):
        devices(environ)


# Shares -------------------------------------------------------------------------------------------


def test_shares_do_not_overlap() -> None:
    """Each worker has as many devices as it should, and none of another; some may be left."""
    five = devices({"CUDA_VISIBLE_DEVICES": "0,2,4,6,8"})
    assert five.shares(None, 2) == [
        {"CUDA_VISIBLE_DEVICES": "0,2"},
        {"CUDA_VISIBLE_DEVICES": "4,6"},
    ]
    assert len(five.shares(None)) == 5
    assert five.shares(1) == [{"CUDA_VISIBLE_DEVICES": "0"}]


def test_more_workers_than_devices() -> None:
    """They would get in each other's way: the message says how many there may be, and why."""
    two = devices({"CUDA_VISIBLE_DEVICES": "2,5"})
    with pytest.raises(
        ff.UsageError,
        match=r"4 workers with gpus=1 each need 4 GPUs, and this process may use 2 "
        r"\(CUDA_VISIBLE_DEVICES=2,5\): take 2 workers, or leave workers= out",
    ):
        two.shares(4)


def test_shares_of_a_node() -> None:
    """The workers of a node share what it has equally."""
    assert gpus_each(2, 5) == 2
    with pytest.raises(ff.UsageError, match="4 workers cannot have a GPU of 2 GPUs each"):
        gpus_each(4, 2)


# Workers ------------------------------------------------------------------------------------------


def meet(folder: Path, number: int, workers: int) -> tuple[int, str]:
    """Wait until every worker has such a task; who this one is, and what it sees."""
    (folder / str(number)).touch()
    until(lambda: len(list(folder.iterdir())) >= workers, "all workers to be here")
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def meeting(pool: ff.ProcessExecutor, folder: Path) -> dict[int, str]:
    """What each worker of a pool sees, by its process id."""
    folder.mkdir()
    futures = [pool.submit(meet, folder, n, pool.workers) for n in range(pool.workers)]
    return dict(future.result(60) for future in futures)


def sole_user(folder: Path) -> str:
    """Take a device until this process ends; fails where another still has it."""
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    lock = os.open(folder / device, os.O_CREAT | os.O_RDWR)  # never closed
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return device


def variable(name: str) -> str:
    return os.environ[name]


def remember() -> None:
    os.environ["SEEN"] = os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def two_gpus(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5555-ab")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_each_worker_sees_its_own(method: str, two_gpus: None, tmp_path: Path) -> None:
    """There are as many workers as GPUs; each sees one, by the name that it has, and the driver
    sees both as before."""
    with ff.executor("processes", gpus=1, mp_context=method) as pool:
        assert sorted(meeting(pool, tmp_path / "there").values()) == ["3", "GPU-5555-ab"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5555-ab"


def test_it_is_seen_from_the_first(two_gpus: None) -> None:
    """The variables are there before anything of the user is imported or called."""
    with ff.ProcessExecutor(1, gpus=2, initializer=remember) as pool:
        assert pool.submit(variable, "SEEN").result(60) == "3,GPU-5555-ab"


def test_a_replacement_has_the_same_device(two_gpus: None, tmp_path: Path) -> None:
    """Who takes the place of a worker that died gets its GPU; the other keeps its own."""
    with ff.executor("processes", gpus=1) as pool:
        before = meeting(pool, tmp_path / "before")
        with pytest.raises(ff.WorkerDied) as died:
            pool.submit(os.kill, 0, signal.SIGKILL).result(60)
        after = meeting(pool, tmp_path / "after")
    [lost] = before.keys() - after.keys()
    [new] = after.keys() - before.keys()
    assert lost == died.value.pid
    assert after[new] == before[lost]
    assert sorted(after.values()) == sorted(before.values())


def test_a_device_is_free_when_its_worker_has_ended(two_gpus: None, tmp_path: Path) -> None:
    """A worker that has done all it may do is replaced once it has ended, and not before: two
    never have one GPU."""
    with ff.executor("processes", gpus=1, max_tasks_per_child=1) as pool:
        used = [pool.submit(sole_user, tmp_path) for _ in range(8)]
        assert {future.result(60) for future in used} <= {"3", "GPU-5555-ab"}


def test_an_executor_inside_a_task(two_gpus: None) -> None:
    """What a task starts shares the GPU of its worker: there are no others to be had."""

    def inner(_: int) -> list[str]:
        with ff.executor("processes", gpus=1) as pool:
            return ff.map(lambda _: os.environ["CUDA_VISIBLE_DEVICES"], [0], on=pool)

    with ff.executor("processes", gpus=1) as pool:
        assert {seen for [seen] in ff.map(inner, range(2), on=pool)} <= {"3", "GPU-5555-ab"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_workers": 4, "gpus": 1}, "take 2 workers"),
        ({"gpus": 3}, "a worker needs 3 GPUs, and this process may use 2"),
        ({"gpus": 0.5}, "gpus must be a whole number"),
        ({"gpus": -1}, "gpus must be a whole number"),
        ({"gpus": 1, "mp_context": "fork"}, 'needs mp_context="forkserver"'),
        ({"max_workers": 0, "gpus": 1}, "max_workers must be greater than 0"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str, two_gpus: None) -> None:
    """What cannot be given is refused before a worker is started."""
    with pytest.raises(ff.UsageError, match=message):
        ff.ProcessExecutor(**options)


# Runs ---------------------------------------------------------------------------------------------

SEEN = """
import os
import pathlib
import time

def seen(n):
    pathlib.Path(f"at-{os.getpid()}").touch()
    while len(list(pathlib.Path().glob("at-*"))) < 2:
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A small Slurm, whose elements run here."""
    with site_in(tmp_path, monkeypatch) as site:
        (tmp_path / "seeing.py").write_text(SEEN)
        monkeypatch.delitem(sys.modules, "seeing", raising=False)
        yield site


def test_elements_of_a_job_array(
    nvidia_smi: Callable[[str], dict[str, str]], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element has a worker for each of the GPUs that Slurm gave it, whatever its cores, and each
    of them sees its own."""
    import seeing

    nvidia_smi(FOUR)
    monkeypatch.setenv("SLURM_STEP_GPUS", "1,3")
    asked = ff.Resources(cores=4, gpus=2)
    run = ff.run(seeing.seen, range(6), name="r", on="slurm", resources=asked, elements=1)
    assert set(run.wait().results()) == {"GPU-1111-ab", "GPU-3333-ab"}
    assert "gres=gpu:2" in (run.path / "arrays/1.sh").read_text()


def test_an_element_without_its_gpus(
    bare: None, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element that sees fewer GPUs than it asked for runs nothing, and its journal says why."""
    import seeing

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    asked = ff.Resources(gpus=2)
    run = ff.run(seeing.seen, range(2), name="r", on="slurm", resources=asked, elements=1)
    site.wait("101", 0)
    [one] = run.status().elements
    assert one.state == "failed"
    assert "this process may use 1 (CUDA_VISIBLE_DEVICES=0)" in one.message


def test_more_workers_than_gpus_in_an_element(site: Site) -> None:
    """It is refused before anything is submitted, and the message says how GPUs are shared."""
    import seeing

    with pytest.raises(ff.UsageError, match=r"3 workers cannot have a GPU of 2 .*--gres=gpu:1"):
        ff.run(seeing.seen, [1], on="slurm", workers=3, resources=ff.Resources(gpus=2))
    assert site.jobs() == []


def test_a_run_here(two_gpus: None, site: Site) -> None:
    """A run on this machine shares its GPUs as an element of an array does."""
    import seeing

    run = ff.run(seeing.seen, range(6), on="local", resources=ff.Resources(gpus=2))
    assert set(run.wait().results()) == {"3", "GPU-5555-ab"}
    with pytest.raises(ff.UsageError, match="worker processes: on=\"local\", not on='threads'"):
        ff.run(seeing.seen, [1], on="threads", resources=ff.Resources(gpus=1))


def fanfold(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fanfold", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_command(two_gpus: None, site: Site) -> None:
    """`fanfold run --gpus` does so too; more workers than GPUs is a wrong command, of two lines."""
    done = fanfold("run", "seeing.py:seen", "--range", "1-6", "--gpus", "2", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    seen = {json.loads(line)["result"] for line in done.stdout.splitlines()}
    assert seen == {"3", "GPU-5555-ab"}
    wrong = fanfold("run", "seeing.py:seen", "--range", "1-6", "--gpus", "2", "--workers", "3")
    assert wrong.returncode == 2
    assert "3 workers cannot have a GPU of 2 GPUs each" in wrong.stderr
    assert "Traceback" not in wrong.stderr


# The example --------------------------------------------------------------------------------------


def test_the_example_without_a_gpu(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says in a sentence that there is no GPU, and compares what computes on the cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    script = Path(__file__).parents[1] / "examples/gpu.py"
    command = [sys.executable, script, "--elements", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    first, numpy, *_, last = done.stdout.splitlines()
    assert first == "the sum of two arrays of 1,000 float32, median of 5"
    assert numpy.split()[0] == "NumPy"
    assert last.startswith("There is no GPU to use (CUDA_VISIBLE_DEVICES=): only the cores")
