"""Each directive on the other scheduler: what is written, and what is told."""

import pytest

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.translate import translate


def to_slurm(*directives, body='cd "$HOME"\n'):
    lines = "".join(f"#PBS {directive}\n" for directive in directives)
    return translate(f"#!/bin/bash\n{lines}{body}", "slurm")


def to_pbs(*directives, body='cd "$HOME"\n'):
    lines = "".join(f"#SBATCH {directive}\n" for directive in directives)
    return translate(f"#!/bin/bash\n{lines}{body}", "pbs")


def written(translation):
    """The directives of a translation, without their prefix."""
    lines = translation.text.splitlines()
    return [line.split(" ", 1)[1] for line in lines if line.startswith(("#PBS", "#SBATCH"))]


def told(translation):
    return "\n".join(f"{note.line}: {note.text}" for note in translation.notes)


def lost(translation):
    return [note.text for note in translation.notes if note.lost]


# One directive, one twin --------------------------------------------------------------------------

TWINS = [
    ("-N demo", "--job-name=demo"),
    ("-l walltime=01:30:00", "--time=01:30:00"),
    ("-l walltime=100:00:00", "--time=100:00:00"),
    ("-J 1-10", "--array=1-10"),
    ("-J 4-25:3", "--array=4-25:3"),
    ("-J 1-10:2%3", "--array=1-10:2%3"),
    ("-P physics", "--account=physics"),
    ("-q long", "--partition=long"),
    ("-M a@b.c,d@e.f", "--mail-user=a@b.c,d@e.f"),
    ("-m abe", "--mail-type=BEGIN,FAIL,END"),
    ("-m n", "--mail-type=NONE"),
    ("-m ej", "--mail-type=ARRAY_TASKS,END"),
    ("-o logs/out.txt", "--output=logs/out.txt"),
    ("-o 50%.txt", "--output=50%%.txt"),
    ("-e 'two words'", '--error="two words"'),
    ("-e Demo^array_index^/stderr", "--error=Demo%a/stderr"),
    ("-V", "--export=ALL"),
    ("-v A=1,B", "--export=A=1,B"),
    ("-W depend=afterok:12:13,afterany:14", "--dependency=afterok:12:13,afterany:14"),
    ("-W block=true", "--wait"),
    ("-r y", "--requeue"),
    ("-r n", "--no-requeue"),
    ("-p -10", "--nice=10"),
    ("-a 202712251030", "--begin=2027-12-25T10:30"),
    ("-a 202712251030.15", "--begin=2027-12-25T10:30:15"),
    ("-a 12251030", "--begin=12/25-10:30"),
    ("-a 1030", "--begin=10:30"),
    ("-h", "--hold"),
    ("-l place=excl", "--exclusive"),
]


@pytest.mark.parametrize(("pbs", "slurm"), TWINS)
def test_a_directive_of_pbs_on_slurm(pbs, slurm):
    """A directive with a twin is written as it, and nothing is lost."""
    translation = to_slurm(pbs)
    assert (written(translation), lost(translation)) == ([slurm], [])


@pytest.mark.parametrize(("pbs", "slurm"), TWINS)
def test_a_directive_of_slurm_on_pbs(pbs, slurm):
    """And back; where Slurm has no --error, -j oe says so to PBS."""
    translation = to_pbs(slurm)
    assert [line for line in written(translation) if line != "-j oe"] == [pbs]
    assert lost(translation) == []


LAYOUTS = [
    ("select=1:ncpus=4", "--nodes=1 --ntasks-per-node=1 --cpus-per-task=4"),
    ("select=1:ncpus=4:mem=8gb", "--nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G"),
    (
        "select=1:ncpus=20:mpiprocs=20:ompthreads=1",
        "--nodes=1 --ntasks-per-node=20 --cpus-per-task=1",
    ),
    (
        "select=1:ncpus=8:mpiprocs=4:ompthreads=2:ngpus=2:mem=100mb",
        "--nodes=1 --ntasks-per-node=4 --cpus-per-task=2 --mem=100M --gres=gpu:2",
    ),
    (
        "select=20:ncpus=2:ngpus=1:mem=4gb",
        "--ntasks=20 --cpus-per-task=2 --mem-per-cpu=2G --gpus-per-task=1",
    ),
    (
        "select=2:ncpus=8:mem=16gb -l place=scatter",
        "--nodes=2 --ntasks-per-node=1 --cpus-per-task=8 --mem=16G",
    ),
    (
        "select=2:ncpus=8 -l place=scatter:excl",
        "--nodes=2 --ntasks-per-node=1 --cpus-per-task=8 --exclusive",
    ),
]


@pytest.mark.parametrize(("pbs", "slurm"), LAYOUTS)
def test_chunks_on_slurm(pbs, slurm):
    """A chunk that may lie anywhere is a task; chunks on nodes of their own are nodes."""
    assert written(to_slurm(f"-l {pbs}")) == [slurm]


@pytest.mark.parametrize(("pbs", "slurm"), LAYOUTS)
def test_nodes_and_tasks_on_pbs(pbs, slurm):
    """And back."""
    directives = [line for line in written(to_pbs(slurm)) if line != "-j oe"]
    assert " ".join(directives) == f"-l {pbs}"


@pytest.mark.parametrize(
    ("pbs", "slurm"),
    [
        ("nodes=2:ppn=4", "--nodes=2 --ntasks-per-node=4 --cpus-per-task=1"),
        ("nodes=2:ppn=4,mem=8gb", "--nodes=2 --ntasks-per-node=4 --cpus-per-task=1 --mem=4G"),
        (
            "nodes=1:ppn=2:gpus=1",
            "--nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gres=gpu:1",
        ),
        ("select=2:ncpus=1", "--ntasks=2 --cpus-per-task=1"),
        ("ncpus=4,mem=1gb", "--nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=1G"),
        (
            "select=3:ncpus=2:mem=1gb -l place=pack",
            "--nodes=1 --ntasks-per-node=3 --cpus-per-task=2 --mem=3G",
        ),
        ("select=1:ncpus=2:mem=1000", "--nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --mem=1K"),
        ("select=ncpus=2", "--nodes=1 --ntasks-per-node=1 --cpus-per-task=2"),
    ],
)
def test_other_ways_to_ask_pbs_for_cores(pbs, slurm):
    """The older -l nodes and -l mem, which is for the whole job; chunks packed on one node."""
    assert written(to_slurm(f"-l {pbs}")) == [slurm]


@pytest.mark.parametrize(
    ("slurm", "pbs"),
    [
        ("-N 1 -n 20", "select=1:ncpus=20:mpiprocs=20:ompthreads=1"),
        ("-n4 -c2 --mem=8000", "select=1:ncpus=8:mpiprocs=4:ompthreads=2:mem=8000mb"),
        ("--mem-per-cpu=500 -c 4", "select=1:ncpus=4:mem=2000mb"),
        ("-N 2 -n 4 -G 4", "select=2:ncpus=2:mpiprocs=2:ompthreads=1:ngpus=2"),
        ("-n 4 -G 1", "select=1:ncpus=4:mpiprocs=4:ompthreads=1:ngpus=1"),
        ("--gres=gpu", "select=1:ncpus=1:ngpus=1"),
        ("--nodes 2 --gpus-per-node=1", "select=2:ncpus=1:ngpus=1"),
        ("--ntasks=8 --ntasks-per-node=4", "select=2:ncpus=4:mpiprocs=4:ompthreads=1"),
        ("--mem=2GB", "select=1:ncpus=1:mem=2gb"),
        ("--mem=1T", "select=1:ncpus=1:mem=1tb"),
    ],
)
def test_other_ways_to_ask_slurm_for_cores(slurm, pbs):
    """Short options, memory for each core, GPUs of the whole job, tasks without nodes."""
    assert written(to_pbs(slurm))[0] == f"-l {pbs}"


@pytest.mark.parametrize(
    ("slurm", "seconds"),
    [
        ("5", "00:05:00"),
        ("90", "01:30:00"),
        ("1:30", "00:01:30"),
        ("0:0:61", "00:01:01"),
        ("1-0", "24:00:00"),
        ("2-12", "60:00:00"),
        ("1-2:3", "26:03:00"),
        ("1-2:3:4", "26:03:04"),
    ],
)
def test_times_of_slurm(slurm, seconds):
    """A bare number is minutes; two are minutes and seconds; a dash comes after days."""
    assert written(to_pbs(f"--time={slurm}"))[0] == f"-l walltime={seconds}"


@pytest.mark.parametrize(
    ("pbs", "time"),
    [("5", "00:00:05"), ("00:05", "00:00:05"), ("90:00", "01:30:00"), ("1:2:3", "01:02:03"),
     ("00:00:90", "00:01:30"), ("00:00:05.5", "00:00:06")],
)  # fmt: skip
def test_walltimes_of_pbs(pbs, time):
    """A bare number is seconds; Slurm's whole minutes are told."""
    translation = to_slurm(f"-l walltime={pbs}")
    assert written(translation) == [f"--time={time}"]
    assert "whole minutes" in told(translation) or time.endswith(":00")


@pytest.mark.parametrize(
    ("slurm", "pbs"),
    [
        ("1,3,5", "1-5:2"),
        ("3,1,2", "1-3"),
        ("1-3,2-4", "1-4"),
        ("[1-3]", "1-3"),
        ("1, 3", "1-3:2"),
        ("01-03", "1-3"),
        ("5", "5-6:2"),
        ("1-10:3%2", "1-10:3%2"),
    ],
)
def test_arrays_of_slurm(slurm, pbs):
    """A list that is a range becomes one; one index alone is a range with a step past its end."""
    assert written(to_pbs(f'--array="{slurm}"'))[0] == f"-J {pbs}"


@pytest.mark.parametrize(
    ("path", "array", "pbs"),
    [
        ("logs/%A_%a.out", True, ["-o logs/"]),
        ("%x-%j.out", False, []),
        ("%x.txt", False, ["-o demo.txt"]),
        ("%a/50%%", True, ["-o ^array_index^/50%"]),
        (r"'\\%a'", True, ["-o %a"]),
        ("%4a.out", True, ["-o ^array_index^.out"]),
    ],
)
def test_patterns_of_slurm(path, array, pbs):
    """PBS knows the index only: the id of a job is left to the name that PBS gives."""
    asked = ["-J demo", *(["-a 1-3"] if array else []), f"-o {path}"]
    directives = written(to_pbs(*asked))
    assert [line for line in directives if line.startswith("-o")] == pbs


def test_a_folder_as_output():
    """-o of a folder has the id of the job in the name, and so has the twin."""
    assert written(to_slurm("-o logs/", "-j oe")) == ["--output=logs/%j.out"]
    assert written(to_slurm("-J 1-3", "-e logs/"))[1] == "--error=logs/%A_%a.err"


@pytest.mark.parametrize(
    ("directives", "slurm"),
    [
        (("-j oe", "-o a", "-e b"), ["--output=a"]),
        (("-j eo", "-o a", "-e b"), ["--output=b"]),
        (("-j n", "-o a", "-e b"), ["--output=a", "--error=b"]),
        (("-k doe", "-j oe"), []),
        (("-W block=false", "-j oe"), []),
    ],
)
def test_joined_output(directives, slurm):
    """Slurm joins unless there is an --error; of two paths the one that PBS ignores goes."""
    assert written(to_slurm(*directives)) == slurm


def test_environment_of_slurm():
    """ALL is -V, names are -v, and NONE is what PBS does by itself."""
    assert written(to_pbs("--export=ALL,A=1,B"))[:2] == ["-V", "-v A=1,B"]
    assert written(to_pbs("--export=NONE")) == ["-j oe"]
    assert written(to_slurm("-V", "-v A=1,B")) == ["--export=ALL,A=1,B"]
    assert written(to_pbs("--export=A='x y'"))[0] == "-v 'A=x y'"


@pytest.mark.parametrize(
    ("pbs", "slurm"),
    [
        ('''-v "A='x y',B"''', '--export="A=x y,B"'),
        (r"-v A=x\,y", None),
        ('''-v "A='x,y'"''', None),
    ],
)
def test_awkward_values(pbs, slurm):
    """Quotes of qsub's own are read; a comma cannot be passed by Slurm, and that is told."""
    translation = to_slurm(pbs)
    assert written(translation) == ([slurm] if slurm else [])
    assert slurm or "set A in the script itself" in lost(translation)[0]


# What has no twin ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directive", "sentence"),
    [
        ("-l walltime=5m", "write seconds, or HH:MM:SS"),
        ("-l walltime=1-00:00:00", "PBS refuses it"),
        ("-l walltime=-1", "PBS refuses it"),
        ("-l walltime=", "PBS refuses it"),
        ("-l walltime=0", "no time at all"),
        ("-J 1,3,5", "there are no lists"),
        ("-J 5-5", "an array of 5 alone is 5-6:2"),
        ("-J 10-1", "PBS refuses it"),
        ("-J 1-10:0", "a step is at least 1"),
        ("-J 1-10%3:2", "PBS refuses it"),
        ("-m j", "PBS refuses it"),
        ("-m xyz", "PBS refuses it"),
        ("-p 10", "only an administrator"),
        ("-p high", "from -1024 to 1023"),
        ("-l select=1:ncpus=2:mem=1.5gb", "without fractions"),
        ("-l select=1:ncpus=2+4:ncpus=1", "heterogeneous"),
        ("-l select=1:ncpus=2:model=skylake", "model is your site's own"),
        ("-l select=2 -l mem=4gb", "put it into the select"),
        ("-l nodes=n01+n02", "only nodes=N:ppn=M"),
        ("-l place=group=host", "place=group=host"),
        ("-l software=matlab", "-l software=matlab"),
        ("-W umask=022", "before your first command"),
        ("-W depend=before:12", "only after, afterok"),
        ("-W depend=afterok", "only after, afterok"),
        ("-S /bin/sh", "#! line"),
        ("-k oe", "home folder"),
        ("-A grant -P physics", "-P physics in line 2 counts"),
        ("-o host:/a", "on host host"),
        ("-q long@server", "server of -q long@server"),
        ("-N my job", "'job' is no option of qsub"),
        ("-t 1-3", "no option of qsub"),
        ("-N", "there is no value"),
        ("-j both", "write oe, eo or n"),
        ("-r maybe", "write y or n"),
        ('-v "A=\'x"', "a quote is not closed, and qsub refuses it"),
        ("-N 'open", "a quote is not closed"),
        ("-a tomorrow", "CCYYMMDDhhmm"),
        (r"-o a\b", "backslash"),
        ("-h -I", "salloc"),
    ],
)
def test_what_pbs_says_alone(directive, sentence):
    """What has no twin, and what qsub itself refuses, is told with a remedy and stays in sight."""
    translation = to_slurm(directive)
    assert sentence in lost(translation)[0]
    assert f"# no twin on Slurm: {lost(translation)[0]}\n" in translation.text
    assert translation.notes[0].line == 2


@pytest.mark.parametrize(
    ("directive", "sentence"),
    [
        ("--time=5m", "Slurm refuses it: write minutes"),
        ("--time=1.5", "Slurm refuses it"),
        ("--time=1:2:3:4", "Slurm refuses it"),
        ("--time=0", "no endless walltime"),
        ("--time=UNLIMITED", "no endless walltime"),
        ("--mem=1.5G", "without fractions"),
        ("--mem=0", "all the memory of a node"),
        ("--mem=abc", "no size to Slurm"),
        ("-n 0", "whole number of at least 1"),
        ("-N 2-4", "one number of nodes"),
        ("--gres=gpu:a100:2", "the kind of a GPU"),
        ("--gres=fpga:1", "--gres=fpga:1"),
        ("-N 2 --gpus=3", "do not divide"),
        ("--array=1,4,9", "no list of indices"),
        ("--array=1-", "Slurm refuses it"),
        ("--array=5-1", "Slurm refuses it"),
        ("--array=1-10:0", "Slurm refuses it"),
        ("--array=1-10%3:2", "write 1-10:2%3"),
        ("--array=", "Slurm refuses it"),
        ("--array=1-99999999", "at most"),
        ("--array=1-4000000,1-4000000", "more than 4000000 indices"),
        ("--mail-type=END,TIME_LIMIT_80", "TIME_LIMIT_80"),
        ("--qos=high", "by queue"),
        ("--constraint=haswell", "-l select="),
        ("--chdir='/a b'", "write cd '/a b' in the script"),
        ("--chdir='$(touch x)'", "write cd '$(touch x)' in the script"),
        ("--exclusive=user", "--exclusive=user"),
        ("-d singleton", "only after, afterok"),
        ("-d 'afterok:1?afterok:2'", "only after, afterok"),
        ("--begin=now+1hour", "a date and time"),
        ("-o é.txt", "outside ASCII"),
        ("-o a:b.txt", "for a host"),
        ("-a 1-3 --no-requeue", "refuses -r n for arrays"),
        ("--bogus", "--bogus"),
        ("stray", "'stray' is no option of sbatch"),
        ("hetjob", "unequal chunks"),
        ("--hold=yes", "it takes no value"),
        ("--nice=very", "write a whole number"),
        ("--mail-type=SOME", "PBS mails when a job begins"),
        (r"--export='A=\\\\x'", "qsub spoils backslashes and quotes: set A in the script"),
        (r"""-o "it's a \"b\"" """, "both kinds of quotes"),
    ],
)
def test_what_slurm_says_alone(directive, sentence):
    """The same from Slurm."""
    translation = to_pbs(directive)
    assert sentence in lost(translation)[0]
    assert f"# no twin on PBS: {lost(translation)[0]}\n" in translation.text


def test_the_rest_of_a_line_is_translated():
    """One option without a twin costs none of its neighbours."""
    translation = to_pbs("-J a --bogus x -c 2")
    assert written(translation)[:2] == ["-N a", "-l select=1:ncpus=2"]
    assert lost(translation) == ["--bogus=x"]


def test_a_name_that_pbs_refuses():
    """It is changed to one that qsub takes, and told."""
    translation = to_pbs("-J 'a b; rm'")
    assert written(translation)[0] == "-N a_b__rm"
    assert "qsub refuses the name 'a b; rm': it is 'a_b__rm' here" in told(translation)


def test_the_last_of_two_counts():
    """As both schedulers do it; the one before is told, and its value is not written."""
    translation = to_slurm("-N a", "-N b")
    assert written(translation) == ["--job-name=b"]
    assert "2: -N a: -N b in line 3 counts" in told(translation)


def test_comments_behind_directives():
    """They become lines of their own; qsub refuses them, and that is told."""
    assert "# eight\n#PBS -l select=1:ncpus=8\n" in to_pbs("-c 8 # eight").text
    translation = to_slurm("-N withtail # a comment")
    assert "# a comment\n#SBATCH --job-name=withtail\n" in translation.text
    assert "2: PBS refuses a comment behind a directive" in told(translation)


def test_nothing_is_obeyed_that_a_terminal_would():
    """Escape sequences in a script are shown, not sent."""
    translation = to_slurm("-l x=\x1b[2J")
    assert lost(translation) == [r"-l x=\x1b[2J"]


# What differs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directives", "body", "sentence"),
    [
        ((), "true\n", "Slurm starts in the folder of sbatch, PBS in the home folder"),
        ((), "cd results\n", "Slurm starts in the folder of sbatch, PBS in the home folder"),
        ((), "true\n", "add #SBATCH --export=NONE"),
        (("-N demo",), "true\n", "add #SBATCH --output=demo.o%j"),
        (("-N demo", "-J 1-3"), "true\n", "add #SBATCH --output=demo.o%A.%a"),
        (("-N demo",), "true\n", "add #SBATCH --error=demo.e%j"),
        (("-N {}",), "true\n", 'add #SBATCH --output="{}.o%j"'),
        (("-q long",), "true\n", "is there one called long?"),
        (("-J 1-5000",), "true\n", "indices up to 1000"),
        (("-M a@b.c",), "true\n", "without -m PBS mails when it aborts"),
        (("-m a",), "true\n", "FAIL also mails"),
        (("-l nodes=2:ppn=1,mem=2gb",), "true\n", "for the whole job"),
        (("-l select=1:ncpus=4",), "true\n", "PBS sets OMP_NUM_THREADS=4"),
        (("-l select=2:ncpus=4:mpiprocs=4",), "true\n", "each on a node of its own"),
        (("-l select=1:ncpus=5:mpiprocs=2",), "true\n", "5 cores do not divide"),
        (("-W depend=afterok:1",), "true\n", "must be written anew"),
        ((), "ls $TMPDIR\n", "all jobs share"),
        ((), "echo $PBS_JOBID\n", "variable PBS_JOBID: a number alone on Slurm"),
        ((), "echo $NCPUS\n", "only where --cpus-per-task is asked for"),
        ((), "true\n#PBS -N late\n", "-N late: a directive after the first command, in line 3"),
    ],
)
def test_what_differs_on_slurm(directives, body, sentence):
    """What runs otherwise is told, and the script is not changed in silence."""
    assert sentence in told(to_slurm("-l walltime=60:00", *directives, body=body))


@pytest.mark.parametrize(
    ("directives", "sentence"),
    [
        ((), 'add cd "$PBS_O_WORKDIR"'),
        ((), "PBS does not pass the environment of qsub"),
        (("--export=ALL",), "-V passes nothing in OpenPBS 23.06"),
        ((), "PBS writes NAME.oID"),
        ((), "when the job ends"),
        (("-a 1-20000",), "10000 elements"),
        (("-n 5 -N 2",), "5 tasks do not divide"),
        (("-n 5 --mem=1G",), "in one chunk, on one node"),
    ],
)
def test_what_differs_on_pbs(directives, sentence):
    """The same from Slurm."""
    assert sentence in told(to_pbs("-t 5", *directives, body="true\n"))


def test_a_script_that_asks_for_all_of_it_hears_nothing():
    """Nothing is told of what does not differ."""
    translation = to_slurm("-N a", "-j oe", "-o a.txt", "-V", body="cd $PBS_O_WORKDIR\n")
    assert translation.notes == ()


# The body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pbs", "slurm"),
    [
        ("echo $PBS_ARRAY_INDEX", "echo $SLURM_ARRAY_TASK_ID"),
        ("cd ${PBS_O_WORKDIR:-.}", "cd ${SLURM_SUBMIT_DIR:-.}"),
        ("echo ${PBS_JOBID%%.*} $PBS_ARRAY_ID", "echo ${SLURM_JOB_ID%%.*} $SLURM_ARRAY_JOB_ID"),
        ("echo $PBS_JOBNAME $PBS_QUEUE", "echo $SLURM_JOB_NAME $SLURM_JOB_PARTITION"),
        ("i = int(os.environ['PBS_ARRAY_INDEX'])", "i = int(os.environ['SLURM_ARRAY_TASK_ID'])"),
        ("./a -t $NCPUS -u ${NCPUS}", "./a -t $SLURM_CPUS_PER_TASK -u ${SLURM_CPUS_PER_TASK}"),
    ],
)
def test_variables_have_twins(pbs, slurm):
    """Both ways, however they are written."""
    assert to_slurm("-N a", body=f"{pbs}\n").text.endswith(f"\n{slurm}\n")
    assert to_pbs("-J a", body=f"{slurm}\n").text.endswith(f"\n{pbs}\n")


@pytest.mark.parametrize("line", ["echo $MY_PBS_JOBID", "NCPUS=3", "# uses $PBS_JOBID", "PBS_X"])
def test_what_stays_in_the_body(line):
    """Longer names, assignments to NCPUS, comments and names that nobody knows stay."""
    assert to_slurm("-N a", body=f"{line}\n").text.endswith(f"\n{line}\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("mpirun -f $PBS_NODEFILE", 'scontrol show hostnames "$SLURM_JOB_NODELIST"'),
        ("echo $PBS_TASKNUM", "variable PBS_TASKNUM"),
        ("x=$(qstat -f)", "command qstat: use squeue"),
        ("pbsdsh date", "command pbsdsh: use srun"),
    ],
)
def test_what_the_body_says_to_pbs_alone(line, sentence):
    """A variable or a command without a twin is told with its line."""
    translation = to_slurm("-N a", body=f"true\n{line}\n")
    assert sentence in lost(translation)[0]
    assert translation.notes[0].line == 4


def test_what_the_body_says_to_slurm_alone():
    """The same from Slurm, each name where it comes first."""
    translation = to_pbs("-J a", body="srun -n $SLURM_NTASKS a\nsrun -n $SLURM_NTASKS b\n")
    assert [text.split(":")[0] for text in lost(translation)] == [
        "variable SLURM_NTASKS",
        "command srun",
    ]


# The script as a whole ----------------------------------------------------------------------------


def test_lines_keep_their_places():
    """Twins stand where the directive stood; every other line is where and what it was."""
    text = "#!/bin/sh\n# one\n#PBS -N a\n\n# two\n #PBS -m n\n\n\ttrue  \n#PBS -N b"
    assert translate(text, "slurm").text == (
        "#!/bin/sh\n# one\n#SBATCH --job-name=a\n\n# two\n#SBATCH --mail-type=NONE\n\n\ttrue  \n"
        "#PBS -N b"
    )


def test_dos_line_ends():
    """They are kept, and told: neither scheduler runs such a script."""
    translation = translate("#!/bin/sh\r\n#PBS -N a\r\ntrue\r\n", "slurm")
    assert translation.text == "#!/bin/sh\r\n#SBATCH --job-name=a\r\ntrue\r\n"
    assert "sed -i 's/\\r$//'" in lost(translation)[0]


def test_an_interpreter_is_put_first():
    """Slurm refuses a script without a #! line; PBS does not."""
    translation = translate("#PBS -N a\ntrue\n", "slurm")
    assert translation.text == "#!/bin/bash\n#SBATCH --job-name=a\ntrue\n"
    assert "1: Slurm refuses a script without a #! line" in told(translation)


@pytest.mark.parametrize("to", [None, "slurm"])
def test_which_scheduler_is_found_out(to):
    """Without --to a script is translated for the other scheduler."""
    assert "#SBATCH --job-name=a" in translate("#!/bin/sh\n#PBS -N a\n", to).text


def test_the_same_scheduler_is_the_identity():
    """A script that is for that scheduler already comes back untouched, and without remarks."""
    text = "#PBS -N my job\r\ntrue $SLURM_X\r\n#SBATCH late"
    assert translate(text, "pbs") == (text, ())


def test_directives_of_both():
    """With --to those that are there stay, and are told; without, one must say which."""
    text = "#!/bin/sh\n#SBATCH -J x\n#PBS -N y\n"
    translation = translate(text, "slurm")
    assert translation.text == "#!/bin/sh\n#SBATCH -J x\n#SBATCH --job-name=y\n"
    assert "2: -J x: was there already, and stays" in told(translation)
    with pytest.raises(UsageError, match="say --to slurm or --to pbs"):
        translate(text)


@pytest.mark.parametrize("text", ["", "\n", "#!/bin/sh\ntrue\n", "hello"])
def test_what_is_no_job_script(text):
    """Without a directive of either scheduler there is nothing to translate."""
    with pytest.raises(UsageError, match="no line begins with #PBS or #SBATCH"):
        translate(text, "slurm")
