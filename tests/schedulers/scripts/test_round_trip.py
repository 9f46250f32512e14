"""There and back: the same directives, whatever they ask for."""

from hypothesis import assume, given
from hypothesis import strategies as st

from fanfold.schedulers.scripts.dialect import Note
from fanfold.schedulers.scripts.directives import quote_pbs, quote_slurm
from fanfold.schedulers.scripts.translate import translate
from fanfold.units import format_walltime

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.+-]{0,12}", fullmatch=True)
WORDS = st.text(
    st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="\"'\\:,%^/"),
    min_size=1,
    max_size=12,
).filter(lambda word: word == word.strip() and not word.startswith("-"))
ONES = st.integers(1, 64)


@st.composite
def arrays(draw):
    first, step = draw(st.integers(0, 500)), draw(st.integers(1, 9))
    last = first + draw(st.integers(1, 400))
    limit = draw(st.sampled_from(["", "%1", "%20"]))
    return f"{first}-{last}" + (f":{step}" if step > 1 else "") + limit


@st.composite
def layouts(draw):
    """Chunks as fanfold writes them: one, or tasks anywhere, or each on a node of its own."""
    chunks, processes, threads = draw(ONES), draw(ONES), draw(ONES)
    scatter = chunks > 1 and (processes > 1 or draw(st.booleans()))
    select = [f"{chunks}:ncpus={processes * threads}"]
    if processes > 1:
        select.append(f"mpiprocs={processes}:ompthreads={threads}")
    if draw(st.booleans()):
        select.append(f"ngpus={draw(ONES)}")
    if draw(st.booleans()):
        megabytes = draw(st.integers(1, 1023))  # of each core, which --mem-per-cpu counts
        size = megabytes * processes * threads
        unit = "gb" if size % 1024 == 0 else "mb"
        select.append(f"mem={size // 1024 if unit == 'gb' else size}{unit}")
    place = ["scatter"] if scatter else []
    place += ["excl"] if draw(st.booleans()) else []
    return ["-l select=" + ":".join(select), *([f"-l place={':'.join(place)}"] if place else [])]


@st.composite
def directives(draw):
    """Directives of PBS that have twins, each at most once."""
    array = draw(st.none() | arrays())
    index = "^array_index^" if array else ""
    rerun = st.just("y") if array else st.sampled_from("yn")
    options = {
        "-l walltime=": st.integers(1, 10**6).map(format_walltime),
        "-P ": NAMES,
        "-q ": NAMES,
        "-M ": st.just("a@b.c,d@e.f"),
        "-m ": st.sampled_from(["n", "a", "be", "abe", "ej"]),
        "-o ": WORDS.map(lambda word: quote_pbs(f"logs/{word}{index}")),
        "-e ": WORDS.map(lambda word: quote_pbs(f"{index}{word}")),
        "-V": st.just(""),
        "-v ": st.tuples(NAMES, WORDS).map(
            lambda pair: quote_pbs(f"V{pair[0].replace('+', '')}={pair[1]}")
        ),
        "-W depend=": st.sampled_from(["afterok:12", "after:1:2,afternotok:3"]),
        "-W block=": st.just("true"),
        "-r ": rerun,
        "-p ": st.integers(-1024, 0).map(str),
        "-a ": st.sampled_from(["1030", "12251030", "202712251030.15"]),
        "-h": st.just(""),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=8))
    lines = [f"-N {draw(NAMES)}", *(key + draw(options[key]) for key in chosen)]
    lines += [f"-J {array}"] if array else []
    lines += draw(st.just([]) | layouts())
    lines += [] if any(line.startswith("-e ") for line in lines) else ["-j oe"]
    return draw(st.permutations(lines))


def script(lines):
    return "".join(["#!/bin/sh\n", *(f"#PBS {line}\n" for line in lines), "cd x\n"])


def asked(text):
    return sorted(line for line in text.splitlines() if line.startswith("#PBS"))


@given(directives())
def test_there_and_back_gives_the_same_directives(lines):
    """PBS, Slurm, PBS: what has a twin comes back as it was, and nothing is lost on the way."""
    text = script(lines)
    there = translate(text, "slurm")
    back = translate(there.text, "pbs")
    assert asked(back.text) == asked(text)
    assert [note for note in (*there.notes, *back.notes) if note.lost] == []


SLURM_WORDS = st.sampled_from(
    [
        *("-N", "-n", "-c", "-t", "-a", "-J", "-o", "-e", "-d", "-G", "1", "2", "4", "7", "x"),
        *("--ntasks-per-node=3", "--mem=1G", "--mem-per-cpu=100", "--gres=gpu:2", "--exclusive"),
        *("1:30", "2-12", "--array=1,3,5", "1-9:4%2", "--array=1,2,9", '"a', 'b"', "'", "#"),
        *("%x_%j.out", "a%a/%A.txt", "afterok:3", "--begin=2027-01-01T10:00", "--qos=x", "-C"),
        *("--export=ALL", "--export=NONE", "--export=A=1,B", "--mail-type=ALL", "--nice", "-p"),
        *("--mail-type=FAIL,BEGIN", "--requeue", "--no-requeue", "-H", "-W", "-A"),
    ]
)


@given(st.lists(st.lists(SLURM_WORDS, max_size=5).map(" ".join), max_size=6))
def test_what_was_translated_once_stays(lines):
    """Any lines of Slurm, sense or nonsense: there, back and there again is there."""
    lines = ["--hold", *lines]
    text = "".join(["#!/bin/sh\n", *(f"#SBATCH {line}\n" for line in lines), "cd x\n"])
    there = translate(text, "pbs").text
    # Without either, PBS keeps errors in a file of their own; that is told, and not written.
    assume(any(line.startswith(("#PBS -e", "#PBS -j")) for line in asked(there)))
    again = translate(translate(there, "slurm").text, "pbs").text
    assert asked(again) == asked(there)


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.sampled_from(["slurm", "pbs"]))
def test_any_text_is_translated_or_refused(text, to):
    """Whatever stands in a directive, it ends in a script and notes: no other error."""
    prefix = "#PBS" if to == "slurm" else "#SBATCH"
    directive = text.replace("\n", f"\n{prefix} ").replace("\0", "")
    translation = translate(f"#!/bin/sh\n{prefix} {directive}\ntrue\n", to)
    assert translation.text.startswith("#!/bin/sh\n")
    assert all(isinstance(note, Note) and note.text.isprintable() for note in translation.notes)


@given(NAMES, WORDS)
def test_both_quotings_agree(name, word):
    """A value written for one scheduler is the same value on the other."""
    pbs = f"#!/bin/sh\n#PBS -N {name}\n#PBS -e {quote_pbs(word)}\n"
    assert f"--error={quote_slurm(word)}\n" in translate(pbs, "slurm").text
