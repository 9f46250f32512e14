"""What a script finds where it runs: its variables, its folder, its files."""

import os
import re
from pathlib import Path

import pytest

from fanfold.schedulers.scripts.dialect import Layout

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
SHOW = "env; echo pwd=$(pwd); echo umask=$(umask); echo arguments=$*"


def recorded(dialect):
    """The variables that an element of a real scheduler had."""
    text = (TRANSCRIPTS / dialect / "environment-of-an-element.txt").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def shown(bench, name):
    lines = bench.text(name).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_variables_of_slurm(bench):
    """An element has the variables of a real one, but for those about a cluster and its daemons."""
    bench.run(
        SHOW,
        indices=(5, 7),
        step=2,
        arguments=("one", "two three"),
        layout=Layout(ncpus=4, mpiprocs=2),
        queue="debug",
    )
    real, ours = recorded("slurm"), shown(bench, "slurm-1_5.out")
    daemons = {
        *("SLURM_CONF", "SLURM_NODE_ALIASES", "SLURM_TOPOLOGY_ADDR", "SLURM_TOPOLOGY_ADDR_PATTERN"),
        *("SLURM_WORKING_CLUSTER", "SLURM_JOB_QOS", "SLURM_PRIO_PROCESS", "SLURM_TASK_PID"),
    }
    when_asked = {"SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_NPROCS", "SLURM_NTASKS"}
    of_slurm = {name for name in real if name.startswith("SLURM")}
    assert of_slurm - set(ours) == daemons | when_asked
    same = {
        *("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MAX"),
        *("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_CPUS_ON_NODE", "SLURM_NNODES"),
        *("SLURM_JOB_PARTITION", "SLURM_TASKS_PER_NODE", "SLURM_PROCID", "ENVIRONMENT"),
    }
    assert {name: ours[name] for name in same} == {name: real[name] for name in same}
    assert ours["SLURM_ARRAY_JOB_ID"] == "1"
    assert ours["SLURM_JOB_ID"] == ours["SLURM_JOBID"] == "2"  # a number of its own
    assert shown(bench, "slurm-1_7.out")["SLURM_JOB_ID"] == "1"  # but for the last to start
    assert ours["SLURM_SUBMIT_DIR"] == ours["pwd"] == str(bench.folder)
    assert (ours["SLURM_JOB_NAME"], ours["arguments"]) == ("demo", "one two three")


def test_variables_of_pbs(bench):
    """An element has the variables of a real one, but for those of PBS's daemons."""
    layout = Layout(chunks=2, ncpus=4, mpiprocs=2)
    body = f"{SHOW}; cat $PBS_NODEFILE; ls -ld $TMPDIR"
    submit_folder = bench.folder / "sub"
    submit_folder.mkdir()
    job = bench.job(body, "pbs", indices=(1, 2), layout=layout, umask=0o077)
    bench.finish(bench.queue.submit(job._replace(submit_folder=str(submit_folder))))
    real, ours = recorded("pbs"), shown(bench, "sub/demo.o1.1")
    brought = {name for name in real if name.startswith("PBS_O_")} - set(ours)
    assert brought == {"PBS_O_HOME", "PBS_O_LANG", "PBS_O_LOGNAME", "PBS_O_PATH", "PBS_O_SHELL"}
    missing = set(real) - brought - set(ours) - {"_"}
    assert missing == {"MANPATH", "PBS_MOMPORT", "LOGNAME", "SHELL", "USER"}
    assert ours["PBS_ARRAY_ID"] == "1[].local"
    assert ours["PBS_ARRAY_INDEX"] == "1"
    assert ours["PBS_JOBID"] == "1[1].local"
    assert (ours["NCPUS"], ours["OMP_NUM_THREADS"]) == ("4", "4")
    assert ours["pwd"] == ours["PBS_JOBDIR"] == str(bench.folder)  # its home
    assert ours["PBS_O_WORKDIR"] == str(submit_folder)
    assert ours["umask"] == "0077"
    assert len(real["PBS_JOBCOOKIE"]) == len(ours["PBS_JOBCOOKIE"])
    node = os.uname().nodename.split(".")[0]
    assert bench.text("sub/demo.o1.1").splitlines().count(node) == 4  # chunks times processes
    assert re.search(
        r"^drwx------.*/pbs\.1\[1\]\.local$", bench.text("sub/demo.o1.1"), re.MULTILINE
    )


def test_a_plain_job_has_no_variables_of_an_array(bench):
    """Outside an array neither dialect sets an index, and PBS's ids have no brackets."""
    bench.run(SHOW, "slurm")
    bench.run(SHOW, "pbs")
    assert "ARRAY" not in bench.text("slurm-1.out") + bench.text("demo.o2")
    assert shown(bench, "demo.o2")["PBS_JOBID"] == "2.local"


def test_the_profile_is_read_for_pbs_only(bench):
    """PBS starts scripts from a login shell, as a user who logs in has it; Slurm does not."""
    (bench.folder / ".profile").write_text("export GREETING=hello\n")
    (bench.folder / ".bash_profile").write_text("export GREETING=hello\n")
    bench.run("echo got=$GREETING", "pbs", login="/bin/sh")
    bench.run("echo got=$GREETING", "slurm")
    assert bench.text("demo.o1") == "got=hello\n"
    assert bench.text("slurm-2.out") == "got=\n"


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
def test_the_interpreter_of_the_script(bench, dialect):
    """The ``#!`` line is obeyed, its argument included, and stdin is empty."""
    script = "#!/usr/bin/env -S python3 -u\nimport sys\nprint(repr(sys.stdin.read()), sys.flags)\n"
    job = bench.job("", dialect, output="out")._replace(script=script)
    bench.finish(bench.queue.submit(job))
    assert bench.text("out").startswith("'' sys.flags(")


def test_a_script_without_interpreter_is_run_by_the_shell_of_pbs(bench):
    """As a login shell does with a file that is no program."""
    job = bench.job("", "pbs", login="/bin/sh", output="out")._replace(script="echo hello\n")
    assert bench.finish(bench.queue.submit(job)).state == "done"
    assert bench.text("out") == "hello\n"


def test_an_interpreter_that_is_missing(bench):
    """Slurm counts it as exit status 2 and says it in the output; PBS's shell ends with 127."""
    for dialect in ("slurm", "pbs"):
        job = bench.job("", dialect, join="oe", output=dialect)
        ended = bench.finish(bench.queue.submit(job._replace(script="#!/no/such/one\n")))
        assert ended.state == "failed"
        assert ended.exit_status == {"slurm": 2, "pbs": 127}[dialect]
    said = "error: execve(): bad interpreter(/no/such/one): No such file or directory"
    assert said in bench.text("slurm")


def test_line_ends_of_windows_on_pbs(bench):
    """PBS takes such a script, and it ends with 127: there is no interpreter of that name."""
    job = bench.job("", "pbs")._replace(script="#!/bin/sh\r\necho hi\r\n")
    assert bench.finish(bench.queue.submit(job)).exit_status == 127


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("%A_%a.txt", ["1_10.txt", "1_11.txt"]),
        ("%j-%n-%t-%s.txt", ["1-0-0-batch.txt", "2-0-0-batch.txt"]),
        ("%x.%%.%a.txt", ["demo.%.10.txt", "demo.%.11.txt"]),
        ("%4a_%J.txt", ["0010_2.txt", "0011_1.txt"]),
        ("sub-%A.txt", ["sub-1.txt"]),
        ("with space %a.txt", ["with space 10.txt", "with space 11.txt"]),
        ("%b-%q.txt", ["%b-%q.txt"]),
        (r"\%a.txt", ["%a.txt"]),
        ("%N-%u-%a", None),
    ],
)
def test_patterns_of_slurm(bench, pattern, files):
    """The fields of a file name are those of Slurm; unknown ones stay."""
    elements = bench.run("echo out; echo err >&2", indices=(10, 11), output=pattern)
    assert [element.state for element in elements] == ["done", "done"]
    if files is None:
        files = [os.path.basename(element.output) for element in elements]
        node = os.uname().nodename.split(".")[0]
        assert all(name.startswith(f"{node}-") for name in files)
    assert bench.files() == files
    assert bench.text(files[0]) == "out\nerr\n"


def test_patterns_of_slurm_outside_arrays(bench):
    """The index of a job without one is 4294967294, and the number pads, too."""
    bench.run("true", output="plain_%A_%a_%5j")
    assert bench.files() == ["plain_1_4294967294_00001"]


def test_errors_apart_on_slurm(bench):
    """Output and errors share a file unless there is one for the errors."""
    bench.run("echo out; echo err >&2", error="only-%a", indices=(1,))
    assert (bench.text("slurm-1_1.out"), bench.text("only-1")) == ("out\n", "err\n")


def test_relative_paths_of_slurm(bench):
    """They are relative to the folder that the job starts in."""
    (bench.folder / "there").mkdir()
    job = bench.job("pwd", output="out")._replace(folder=str(bench.folder / "there"))
    bench.finish(bench.queue.submit(job))
    assert bench.text("there/out") == f"{bench.folder}/there\n"


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({}, ["demo.e1.1", "demo.e1.2", "demo.o1.1", "demo.o1.2"]),
        ({"output": "Demo^array_index^", "join": "oe"}, ["Demo1", "Demo2"]),
        ({"join": "oe", "error": "elog"}, ["demo.o1.1", "demo.o1.2"]),
        ({"join": "eo"}, ["demo.e1.1", "demo.e1.2"]),
        ({"output": "all.log", "join": "oe"}, ["all.log"]),
        ({"output": "logs/", "join": "oe"}, ["logs/1[1].local.OU", "logs/1[2].local.OU"]),
        ({"output": "logs", "error": "logs"}, None),
        ({"output": "a^array_index^b^array_index^", "join": "oe"}, ["a1b1", "a2b2"]),
        ({"output": "%a.log", "join": "oe"}, ["%a.log"]),
        ({"output": "$PBS_JOBID.out", "join": "oe"}, ["$PBS_JOBID.out"]),
        ({"output": "/dev/null", "error": "/dev/null"}, []),
        ({"output": "doe^array_index^", "join": "oe", "keep": "doe"}, ["doe1", "doe2"]),
    ],
)
def test_paths_of_pbs(bench, fields, files):
    """Names and places of files are those of PBS."""
    (bench.folder / "logs").mkdir()
    elements = bench.run("echo out; echo err >&2", "pbs", indices=(1, 2), **fields)
    assert [element.undelivered for element in elements] == [(), ()]
    if files is None:
        files = [f"logs/1[{index}].local.{end}" for index in (1, 2) for end in ("ER", "OU")]
    assert bench.files() == files


def test_kept_output_of_pbs(bench):
    """``-k oe`` leaves the files in the home folder, under their default names."""
    (bench.folder / "sub").mkdir()
    job = bench.job("echo out", "pbs", keep="oe", output="elsewhere")
    bench.finish(bench.queue.submit(job._replace(submit_folder=str(bench.folder / "sub"))))
    assert bench.files() == ["demo.e1", "demo.o1"]


def test_a_pattern_outside_an_array_of_pbs_stays(bench):
    """``^array_index^`` means something in arrays only."""
    bench.run("echo", "pbs", output="plain^array_index^.log", join="oe")
    assert bench.files() == ["plain^array_index^.log"]


def test_output_of_pbs_comes_at_the_end(bench, gate):
    """PBS puts files in place when the job has ended; Slurm, and -k doe, write where they are."""
    body = f"echo out; touch {bench.folder}/began.$ME; "
    body += f"while [ ! -e {gate.folder}/open ]; do sleep 0.01; done"
    for me, dialect, fields in (
        ("a", "pbs", {}),
        ("b", "pbs", {"keep": "doe"}),
        ("c", "slurm", {}),
    ):
        environment = {"HOME": str(bench.folder), "PATH": "/usr/bin:/bin", "ME": me}
        bench.submit(body, dialect, output=f"out.{me}", environment=environment, **fields)
    bench.until_there("began.a", "began.b", "began.c")
    assert not (bench.folder / "out.a").exists()
    assert (bench.text("out.b"), bench.text("out.c")) == ("out\n", "out\n")
    gate.open()
    bench.finish(1)
    assert bench.text("out.a") == "out\n"


def test_existing_files_are_replaced_or_added_to(bench):
    """Both replace what is there, but for Slurm's --open-mode=append."""
    for name in ("slurm", "pbs", "append"):
        (bench.folder / name).write_text("old and long\n")
    bench.run("echo new", "slurm", output="slurm")
    bench.run("echo new", "pbs", output="pbs", join="oe")
    bench.run("echo new", "slurm", output="append", append=True)
    assert (bench.text("slurm"), bench.text("pbs")) == ("new\n", "new\n")
    assert bench.text("append") == "old and long\nnew\n"


def test_no_folder_for_the_output(bench):
    """S17: nobody makes folders. Slurm does not run the script; PBS runs it, and its output stays
    where it was written until the queue is closed."""
    number = bench.submit("touch ran", output="nodir/%j")
    assert bench.queue.missing_folders(number) == [f"{bench.folder}/nodir"]
    failed = bench.finish(number)
    assert (failed.state, failed.pid, failed.exit_status) == ("failed", None, None)
    assert failed.reason == f"cannot open {bench.folder}/nodir/1: No such file or directory"
    assert bench.files() == []
    ran = bench.run("touch ran; echo out", "pbs", output="nodir/x", join="oe")
    assert (ran.state, bench.files()) == ("done", ["ran"])
    (spool,) = ran.undelivered
    assert Path(spool).read_text() == "out\n"


def test_no_folder_to_start_in(bench):
    """The job fails, and its script does not run somewhere else."""
    job = bench.job("touch ran")._replace(folder=f"{bench.folder}/gone")
    failed = bench.finish(bench.queue.submit(job))
    assert (failed.state, failed.pid) == ("failed", None)
    assert "gone, is not there" in failed.reason


def test_a_pipe_that_nobody_reads_is_no_endless_wait(bench):
    """Output to a named pipe without a reader fails, and the queue goes on."""
    os.mkfifo(bench.folder / "pipe")
    failed, undelivered = (
        bench.run("echo out", dialect, output="pipe", join="oe") for dialect in ("slurm", "pbs")
    )
    assert failed.state == "failed"
    assert "pipe" in failed.reason
    assert len(undelivered.undelivered) == 1


def test_private(bench):
    """What lies in the folder of the queue is for its user only."""
    number = bench.submit("true")
    folder = Path(bench.queue.folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*")} == {0}
    bench.finish(number)


HOSTILE = [
    *(
        "$(touch canary)",
        "`touch canary`",
        ";touch canary;",
        "a\ntouch canary\n",
        "&& touch canary",
    ),
    *("'; touch canary; '", '"; touch canary; "', "| touch canary", "-rf", "--help", "*", "~", "#"),
    *("\\", "%s%n", "é\u202e", "${IFS}touch${IFS}canary", "<(touch canary)", "!touch", "[a]"),
]


@pytest.mark.parametrize("dialect", ["slurm", "pbs"])
def test_hostile_names(bench, dialect):
    """S21: names, folders, variables and arguments never reach a shell as its language."""
    for position, word in enumerate(HOSTILE):
        folder = bench.folder / f"{position}{word.replace('/', '')}"
        folder.mkdir()
        job = bench.job('echo "$0|$VALUE|$*"; pwd', dialect, arguments=(word,))._replace(
            name=word,
            folder=str(folder),
            submit_folder=str(folder),
            output=f"out{word}",
            error=f"err{word}",
            queue=word,
            account=word,
            environment={"HOME": str(folder), "PATH": "/usr/bin:/bin", "VALUE": word},
        )
        ended = bench.finish(bench.queue.submit(job))
        assert ended.state == "done", word
        given = word if dialect == "slurm" else ""
        said = Path(ended.output).read_text()
        assert said.endswith(f"|{word}|{given}\n{folder}\n"), word
    assert not list(bench.folder.rglob("canary*"))
