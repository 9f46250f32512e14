"""fanfold and its peers, side by side, in one interleaved run.

    python -m benchmarks.run --list         the cases, and who takes part in each
    python -m benchmarks.run --quick        all of them, small: a smoke test, not a measurement
    python -m benchmarks.run --name NAME    the measurement, kept in benchmarks/results/NAME.json
    python -m benchmarks.report             docs/benchmarks.md from all that is kept

Every measurement is one fresh driver process (`benchmarks.measure`) with one pool in it, so that
no contender pays for another's threads or memory. `run` goes round the contenders in a new random
order every time; a ratio is taken within a round, between neighbours in time. Needs Linux.
"""
