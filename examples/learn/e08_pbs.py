"""Project, name, queue, walltime, memory and mail: said once, for PBS and for Slurm.

    fanfold run examples/learn/e08_pbs.py:square --range 1-4 --on pbs --walltime 30m --dry-run
    python examples/learn/e08_pbs.py pbs

`ff.Resources` is checked when it is made: what is wrong is told before anything is submitted.
"""

import sys

import fanfold as ff

ASKED = ff.Resources(
    cores=1,
    memory="1GB",
    walltime="30m",
    queue="workq",
    account="physics",
    mail="me@example.org",
    mail_events=["begin", "end", "abort"],
)


def square(number: int) -> int:
    return number * number


def main(place: str) -> None:
    run = ff.run(square, range(1, 5), name="asked", on=place, resources=ASKED, elements=1)
    print(run.wait().results())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pbs")
