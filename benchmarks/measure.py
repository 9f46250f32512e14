"""One measurement: one contender in one case, in this process. `benchmarks.run` starts it.

    python -m benchmarks.measure '{"case": "submits", "contender": "loky", "chunk": null,
                                   "size": "tiny", "workers": 2, "into": "sample.json"}'

Nothing is imported above ``main``: pools that import the main module again in their workers would
be charged for it.
"""

from __future__ import annotations


def main(order: str) -> None:
    import json
    from pathlib import Path

    from benchmarks.cases import CASES
    from benchmarks.cases.base import Entrant, WrongAnswerError
    from benchmarks.contenders import NotOfferedError

    asked = json.loads(order)
    case = CASES[asked["case"]]
    entrant = Entrant(asked["contender"], asked["chunk"])
    try:
        sample = case.measure(entrant, asked["workers"], **case.sizes[asked["size"]])
    except (NotOfferedError, WrongAnswerError) as error:
        said: dict[str, object] = {"failed": str(error)}
    else:
        said = {"sample": sample}
    Path(asked["into"]).write_text(json.dumps(said))


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
