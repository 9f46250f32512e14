"""Twenty tasks on one node of a Slurm cluster, a core each.

fanfold run examples/learn/e09_slurm.py:task --range 0-19 --on slurm --elements 1 --cores 20
python examples/learn/e09_slurm.py 20
"""

import sys

import fanfold as ff


def task(number: int) -> str:
    return f"task {number} of 20"


def main(cores: int) -> None:
    asked = ff.Resources(cores=cores, walltime="1m", mail="me@example.org", mail_events=["begin"])
    run = ff.run(task, range(20), name="twenty", on="slurm", elements=1, resources=asked)
    print(*run.wait().results(), sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
