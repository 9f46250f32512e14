"""Resources as directives of both schedulers."""

import pytest

from fanfold.resources import Resources
from fanfold.schedulers.scripts.translate import translate
from fanfold.schedulers.scripts.writing import directives

ALL = Resources(
    nodes=2,
    cores=4,
    memory="4GB",
    gpus=1,
    walltime="1h30m",
    queue="long",
    account="physics",
    mail="me@example.org",
    mail_events="begin,end,abort",
    constraint="haswell",
    extra=["--qos=high"],
)


def test_resources_of_slurm():
    """Everything that can be asked for."""
    assert directives(ALL, "slurm") == [
        "#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=4 --mem=4G --gres=gpu:1",
        "#SBATCH --time=01:30:00",
        "#SBATCH --partition=long",
        "#SBATCH --account=physics",
        "#SBATCH --mail-user=me@example.org",
        "#SBATCH --mail-type=BEGIN,FAIL,END",
        "#SBATCH --constraint=haswell",
        "#SBATCH --qos=high",
    ]


def test_resources_of_pbs():
    """The same on PBS; a constraint is a resource of each chunk."""
    asked = Resources(**ALL._asdict() | {"constraint": "model=skylake", "extra": ["-W umask=022"]})
    assert directives(asked, "pbs") == [
        "#PBS -l select=2:ncpus=4:ngpus=1:mem=4gb:model=skylake",
        "#PBS -l place=scatter",
        "#PBS -l walltime=01:30:00",
        "#PBS -q long",
        "#PBS -P physics",
        "#PBS -M me@example.org",
        "#PBS -m abe",
        "#PBS -W umask=022",
    ]


@pytest.mark.parametrize("scheduler", ["pbs", "slurm"])
def test_no_mail_is_no_mail(scheduler):
    """An address without events says so: PBS would mail by itself."""
    asked = directives(Resources(mail="me@example.org", mail_events=[]), scheduler)
    assert asked[-1].split()[-1] in ("n", "--mail-type=NONE")


@pytest.mark.parametrize(("scheduler", "other"), [("pbs", "slurm"), ("slurm", "pbs")])
def test_what_is_written_is_read_back(scheduler, other):
    """The directives of one scheduler, translated, are those of the other."""
    asked = Resources(**ALL._asdict() | {"constraint": None, "extra": ()})
    translation = translate("\n".join(["#!/bin/sh", *directives(asked, scheduler), ""]), other)
    twins = [line for line in translation.text.splitlines()[1:] if line != "#PBS -j oe"]
    assert twins == directives(asked, other)
