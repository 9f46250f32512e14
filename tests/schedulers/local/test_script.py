"""From scripts to jobs: what their directives ask for here."""

import signal
import time
from datetime import datetime

import pytest

from fanfold.errors import UsageError
from fanfold.schedulers.local import read_job

ENVIRON = {
    "HOME": "/home/alice",
    "PATH": "/opt/bin:/usr/bin",
    "LANG": "C.UTF-8",
    "SECRET": "s",
    "SLURM_ARRAY_TASK_ID": "9",
    "SLURM_CONF": "/etc/slurm.conf",
    "PBS_ARRAY_INDEX": "8",
}


def read(dialect, *directives, words=(), **options):
    prefix = {"slurm": "#SBATCH", "pbs": "#PBS"}[dialect]
    text = "".join(["#!/bin/sh\n", *(f"{prefix} {line}\n" for line in directives), "true\n"])
    given = {"file_name": "a.sh", "folder": "/work", "environ": ENVIRON, "words": words, **options}
    return read_job(text, dialect, **given)


def refused(dialect, *directives, **options):
    with pytest.raises(UsageError) as error:
        read(dialect, *directives, **options)
    return str(error.value)


def test_a_script_that_asks_for_nothing():
    """Its name is that of its file; Slurm starts it where it is submitted, PBS at home."""
    slurm, pbs = read("slurm"), read("pbs")
    assert (slurm.name, slurm.folder, slurm.indices, slurm.walltime) == (
        *("a.sh", "/work", (None,), None),
    )
    assert (pbs.name, pbs.folder, pbs.submit_folder, pbs.umask) == (
        *("a.sh", "/home/alice", "/work", 0o077),
    )


def test_what_the_environment_is():
    """S28: Slurm passes everything but what belongs to an outer job, PBS a login and some names."""
    assert read("slurm").environment == {
        "HOME": "/home/alice",
        "PATH": "/opt/bin:/usr/bin",
        "LANG": "C.UTF-8",
        "SECRET": "s",
        "SLURM_CONF": "/etc/slurm.conf",
    }
    pbs = read("pbs").environment
    assert set(pbs) == {
        *("HOME", "LOGNAME", "PATH", "SHELL", "USER"),
        *("PBS_O_HOME", "PBS_O_LANG", "PBS_O_PATH"),
    }
    assert pbs["PBS_O_PATH"] == "/opt/bin:/usr/bin"
    assert "/opt/bin" not in pbs["PATH"]


@pytest.mark.parametrize(
    ("directive", "has", "has_not"),
    [
        ("--export=ALL", {"SECRET": "s"}, ()),
        ("--export=NONE", {"HOME": "/home/alice"}, ("SECRET", "LANG")),
        ("--export=NIL", {}, ("SECRET",)),
        ("--export=A=1,SECRET", {"A": "1", "SECRET": "s"}, ("LANG",)),
        ("--export=ALL,A=x", {"A": "x", "SECRET": "s"}, ()),
        ("--export=NOWHERE", {}, ("NOWHERE", "SECRET")),
    ],
)
def test_export(directive, has, has_not):
    """``--export`` is obeyed as Slurm does."""
    environment = read("slurm", directive).environment
    assert has.items() <= environment.items()
    assert not set(has_not) & set(environment)


def test_variables_of_pbs():
    """``-v`` passes values and names; -V passes nothing, as OpenPBS 23.06 has it."""
    environment = read("pbs", "-V", "-v \"A='1,2',SECRET\"").environment
    assert (environment["A"], environment["SECRET"]) == ("1,2", "s")
    assert "LANG" not in environment
    assert "-v NOWHERE: there is no such variable here" in refused("pbs", "-v NOWHERE")


@pytest.mark.parametrize(
    ("text", "indices", "step", "at_once"),
    [
        ("1-10:3%2", [1, 4, 7, 10], 3, 2),
        ("1,3,5", [1, 3, 5], 1, None),
        ("1-3,7,10-20:5%2", [1, 2, 3, 7, 10, 15, 20], 5, 2),
        ("3,1,2", [1, 2, 3], 1, None),
        ("1-3,2-4", [1, 2, 3, 4], 1, None),
        ("7", [7], 1, None),
        ("%2", [0], 1, 2),
        ("1-3,", [1, 2, 3], 1, None),
        ("'1, 3'", [1, 3], 1, None),
        ("[1-3]", [1, 2, 3], 1, None),
        ("01-03", [1, 2, 3], 1, None),
        ("1-4%0", [1, 2, 3, 4], 1, None),
        ("''", [None], 1, None),
    ],
)
def test_arrays_of_slurm(text, indices, step, at_once):
    """Lists, steps and overlaps mean what they mean to sbatch."""
    job = read("slurm", f"--array={text}")
    assert (list(job.indices), job.step, job.at_once) == (indices, step, at_once)
    assert job.is_array == (indices != [None])


@pytest.mark.parametrize("text", ["a", "1-", "5-1", "1-10:0", "1.5", "1-3;5", "0x3", "1..3", "-1"])
def test_arrays_that_slurm_refuses(text):
    """The line and what would be right are said."""
    assert refused("slurm", f"--array={text}").startswith(f"line 2: --array={text}: ")


@pytest.mark.parametrize("text", ["1-4%x", "1-10%3:2", "1-4%"])
def test_what_slurm_would_drop_is_refused(text):
    """Slurm drops a bad % or what stands behind it without a word; here it is an error."""
    assert "Slurm drops what stands behind the %" in refused("slurm", f"--array={text}")


def test_a_giant_array_is_refused_at_once():
    """Indices are not counted out before they are checked: that would take for ever."""
    assert "indices up to 4000000" in refused("slurm", "--array=0-999999999999")


def test_arrays_of_pbs():
    """Ranges with a step and a limit; there are no lists, and no arrays of one."""
    job = read("pbs", "-J 5-6:2%3")
    assert (list(job.indices), job.step, job.at_once) == ([5], 2, 3)
    for text in ("1,3", "5-5", "1-", "10-1"):
        assert refused("pbs", f"-J {text}").startswith(f"line 2: -J {text}: PBS refuses it")


@pytest.mark.parametrize(
    ("dialect", "directive", "seconds"),
    [
        ("slurm", "--time=90", 5400),
        ("slurm", "-t 1-2:03:04", 93784),
        ("slurm", "--time=0", None),
        ("slurm", "--time=UNLIMITED", None),
        ("slurm", "-t infinite", None),
        ("pbs", "-l walltime=00:05", 5),
        ("pbs", "-l select=1:ncpus=1,walltime=1:00:00", 3600),
    ],
)
def test_walltimes(dialect, directive, seconds):
    """Each scheduler counts in its own way, to the second."""
    assert read(dialect, directive).walltime == seconds


def test_walltimes_that_are_refused():
    """S20: with the line, and what would be right."""
    assert refused("slurm", "-J a", "--time=5m") == (
        "line 3: --time=5m: Slurm refuses it: write minutes, HH:MM:SS or D-HH:MM:SS"
    )
    assert "line 2: -l walltime=5m: PBS refuses it" in refused("pbs", "-l walltime=5m")


def test_words_of_the_command_win():
    """What stands behind qsub or sbatch wins over the script, and its faults have no line."""
    job = read("slurm", "--array=1-3", "-J from-script", words=["--array=8,9", "-J", "mine"])
    assert (list(job.indices), job.name) == ([8, 9], "mine")
    assert read("pbs", "-N first", words=["-N", "third"]).name == "third"
    assert refused("slurm", words=["--time=5m"]).startswith("--time=5m: ")


def test_files_of_slurm():
    """Output, errors, input, folder and mode of opening."""
    job = read("slurm", "-o o -e e -D sub -i in", "--open-mode=append")
    assert (job.output, job.error, job.folder) == ("o", "e", "/work/sub")
    assert (job.input, job.append) == ("/work/sub/in", True)


def test_files_of_pbs():
    """A host before a path is nothing here; -j, -k and the umask are kept."""
    job = read("pbs", "-o host:out -e /abs:x", "-j oe -k doe -W umask=027")
    assert (job.output, job.error, job.join, job.keep) == ("out", "/abs:x", "oe", "doe")
    assert job.umask == 0o027
    assert (read("pbs", "-j n -k n").join, read("pbs", "-j n -k n").keep) == ("", "")


def test_sizes():
    """How large a job is decides its variables; what belongs to a site is passed over."""
    job = read("slurm", "-n 2 -c 3 --mem=2G", "--gres=gpu:a100:1", "--nodes=1-4")
    assert (job.layout.mpiprocs, job.layout.ncpus) == (2, 6)
    assert job.environment["SLURM_CPUS_PER_TASK"] == "3"
    assert job.environment["SLURM_MEM_PER_NODE"] == "2048"
    assert read("slurm", "--mem=0").layout.memory is None
    job = read("pbs", "-l select=2:ncpus=4:mpiprocs=2:host=n1+1:ncpus=8", "-l place=group=rack")
    assert (job.layout.chunks, job.layout.ncpus, job.layout.mpiprocs) == (2, 4, 2)
    assert read("pbs", "-l nodes=n7:ppn=3").layout.ncpus == 3
    assert read("pbs", "-l select=ncpus=5").layout.ncpus == 5


def test_sizes_that_are_refused():
    """S20: with the line."""
    assert refused("slurm", "--mem=abc").startswith("line 2: --mem=abc: ")
    assert refused("slurm", "-c 0").startswith("line 2: --cpus-per-task=0: ")
    assert "put it into the select" in refused("pbs", "-l select=1:ncpus=1 -l mem=1gb")


def test_dependencies_holds_and_begins():
    """The numbers of jobs, without their servers."""
    slurm = read("slurm", "-d afterok:12:13,afterany:9 --hold")
    assert slurm.after == (("afterok", 12), ("afterok", 13), ("afterany", 9))
    assert slurm.held
    assert read("pbs", "-W depend=afterok:12[].server").after == (("afterok", 12),)
    assert not read("pbs").held
    assert "line 2" in refused("slurm", "-d singleton")


def test_times_to_begin():
    """A date, a time of today or else tomorrow, or some time from now, in both spellings."""
    moment = datetime(2031, 5, 6, 7, 8).timestamp()
    assert read("slurm", "--begin=2031-05-06T07:08").begin == moment
    assert read("pbs", "-a 203105060708").begin == moment
    now = time.time()
    assert 3590 < read("slurm", "--begin=now+1hour").begin - now < 3610
    for dialect, directive in (("slurm", "--begin=00:01"), ("pbs", "-a 0001")):
        assert 0 < read(dialect, directive).begin - now < 90_000
    assert "write a date and time" in refused("slurm", "--begin=teatime")


def test_warnings():
    """``--signal`` is which, how long before the end, and whether to the script only."""
    assert read("slurm", "--signal=B:USR1@30").warning == (signal.SIGUSR1, 30, True)
    assert read("slurm", "--signal=SIGTERM").warning == (signal.SIGTERM, 60, False)
    assert read("slurm", "--signal=10@5").warning == (10, 5, False)
    assert "BOGUS" in refused("slurm", "--signal=BOGUS@5")


def test_names_that_qsub_refuses():
    """S21: letters, digits and a few marks only, that of the file included."""
    assert "qsub refuses the name 'a b.sh'" in refused("pbs", file_name="a b.sh")
    assert "qsub refuses the name 'x;y'" in refused("pbs", '-N "x;y"')
    assert read("pbs", "-N ok", file_name="a b.sh").name == "ok"


def test_scripts_that_are_refused():
    """Before anything runs, with what would be right."""
    with pytest.raises(UsageError, match="#!"):
        read_job("#SBATCH -J a\ntrue\n", "slurm", file_name="a", folder="/", environ={})
    with pytest.raises(UsageError, match="sed -i"):
        read_job("#!/bin/sh\r\ntrue\r\n", "slurm", file_name="a", folder="/", environ={})
    assert "line 2: -C #ABC: no other prefix is read here" in refused("pbs", "-C '#ABC'")
    assert read("pbs", words=["-C", "#PBS"]).name == "a.sh"
    assert "line 2: -I: it asks for a terminal" in refused("pbs", "-I")
    assert "comment" in refused("pbs", "-N a # why")
    assert refused("slurm", "nonsense").startswith("line 2: nonsense: ")


def test_what_means_nothing_here_is_passed_over():
    """Mail, priorities and what a site has of its own do not keep a script from running."""
    read("slurm", "--mail-type=END --qos=long --constraint=haswell -L matlab:1", "--exclusive")
    read("pbs", "-m abe -M me@example.org -p 5 -r y -W group_list=physics -l cput=1:00:00")
