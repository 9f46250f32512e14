"""Reading scripts: which lines are directives, how their words are split, and no byte is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.directives import quote_pbs, quote_slurm, split_words
from fanfold.schedulers.scripts.lines import parse

# A script that was run on OpenPBS 23.06.06; its job was called "first".
PBS_SCRIPT = """\
#!/bin/bash
# a comment

#PBS -N first
 #PBS -l walltime=00:00:11
#PBS -j oe
echo $PBS_JOBNAME
#PBS -N second
"""

# A script that was run on Slurm 22.05.8; its job was called "after-comment" and had 2 cores.
SLURM_SCRIPT = """\
#!/bin/bash
#SBATCH -J dir
#SBATCH --mem=70 --time=4
#SBATCH --export=NONE
  #SBATCH -J indented
##SBATCH -J commented
#SBATCH -c 2 # trailing comment
# a comment
#SBATCH -J after-comment
echo "$SLURM_JOB_NAME $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE"
#SBATCH -J too-late
"""


def obeyed(text, scheduler):
    return [line.number for line in parse(text).directives(scheduler)]


def test_directives_of_pbs():
    """A #PBS line may be indented; after the first command none is obeyed."""
    assert obeyed(PBS_SCRIPT, "pbs") == [4, 5, 6]
    assert parse(PBS_SCRIPT).first_command == 7


def test_directives_of_slurm():
    """An #SBATCH line begins in the first column; comments between do not end the directives."""
    assert obeyed(SLURM_SCRIPT, "slurm") == [2, 3, 4, 7, 9]


@pytest.mark.parametrize("line", ["#PBS-N x", "#PBS\t-N x", "\t#PBS -N x"])
def test_what_is_a_directive(line):
    """The blank behind the prefix is not needed."""
    assert parse(f"{line}\n").directives("pbs")[0].words == "-N x"


@pytest.mark.parametrize("line", ["#pbs -N x", "##PBS -N x", "# PBS -N x", "#SBATC -J x"])
def test_what_is_none(line):
    """Another case, another # or a blank in the prefix make a comment of it."""
    assert parse(f"{line}\n").schedulers() == []


def test_a_continued_directive_is_one():
    """A backslash at the end of a #PBS line goes on in the next; #SBATCH knows no such thing."""
    script = parse("#PBS -l select=1:ncpus=2,\\\nwalltime=60\n#SBATCH -c \\\n#SBATCH -n 2\n")
    assert [line.number for line in script.lines] == [1, 3, 4]
    assert script.lines[0].words == "-l select=1:ncpus=2,walltime=60"


@given(st.text(st.sampled_from("#PBSATCH -Nx\\\r\n\t\x0b\x85\u2028é"), max_size=60))
def test_the_lines_are_the_script(text):
    """Joined again, the lines are the script: only a line feed ends a line."""
    assert "".join(line.text for line in parse(text).lines) == text


def test_a_binary_is_no_script():
    """NUL bytes are in no script."""
    with pytest.raises(UsageError, match="NUL"):
        parse("#!/bin/sh\n\0")


@pytest.mark.parametrize(
    ("line", "words", "comment"),
    [
        ("-J dir", ["-J", "dir"], ""),
        ("-c 2 # trailing comment", ["-c", "2"], "# trailing comment"),
        ('--output="q %j.txt"', ["--output=q %j.txt"], ""),
        ("-J a#b", ["-J", "a"], "#b"),
        (r"-J 'a\\b'", ["-J", r"a\b"], ""),
        (r'-J "a\"b"', ["-J", 'a"b'], ""),
        ("""-J 'it'"'"'s'""", ["-J", "it's"], ""),
        (r"-J a\ b", ["-J", "a", "b"], ""),
        ("-J ''", ["-J", ""], ""),
    ],
)
def test_words_as_sbatch_splits_them(line, words, comment):
    """Each was tried on Slurm 22.05.8: the name of the job was the second word."""
    assert split_words(line, escapes=True) == (words, comment)


def test_words_as_qsub_splits_them():
    """Backslashes stay, for -v; a # within a word is a part of it."""
    line = r"""-v "A='x,y'",B=x\,y -N a#b # c"""
    words = ["-v", r"A='x,y',B=x\,y", "-N", "a#b"]
    assert split_words(line, escapes=False) == (words, "# c")


def test_an_open_quote_is_told():
    """A quote that is not closed is an error that shows it."""
    with pytest.raises(UsageError, match="not closed: 'b c"):
        split_words("-N a'b c", escapes=False)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_quoted_word_reads_back_from_slurm(word):
    """Whatever is in it: blanks, quotes, backslashes, $(...), #."""
    assert split_words(quote_slurm(word), escapes=True) == ([word], "")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_quoted_word_reads_back_from_pbs(word):
    """All but both kinds of quotes at once, which is refused."""
    try:
        quoted = quote_pbs(word)
    except UsageError:
        assert {"'", '"'} <= set(word)
    else:
        assert split_words(quoted, escapes=False) == ([word], "")
