"""What waits, for what, and what starts next."""

import time

import pytest

from fanfold.schedulers.local import LocalQueue

AT_THE_GATE = (
    'touch "there.$SLURM_JOB_NAME$SLURM_ARRAY_TASK_ID"; while [ ! -e gate ]; do sleep 0.01; done'
)


def there(bench):
    return [path.name.removeprefix("there.") for path in bench.folder.glob("there.*")]


def test_workers(bench):
    """Not more elements run than there are workers, in the order they came."""
    number = bench.submit(AT_THE_GATE, indices=range(6))
    bench.until(lambda: len(there(bench)) == 4, "four elements")
    bench.queue.step(0.1)
    assert bench.states(number) == ["running"] * 4 + ["waiting"] * 2
    assert bench.queue.why(number, 5) == "workers"
    assert bench.queue.why(number, 0) == ""
    (bench.folder / "gate").touch()
    began = [element.began for element in bench.finish(number)]
    assert began == sorted(began)


def test_at_once(bench):
    """An array keeps its own limit, and leaves the other workers to others."""
    first = bench.submit(AT_THE_GATE, indices=range(4), at_once=2)
    second = bench.submit(AT_THE_GATE)
    bench.until(lambda: len(there(bench)) == 3, "three elements")
    bench.queue.step(0.1)
    assert bench.states(first) == ["running"] * 2 + ["waiting"] * 2
    assert bench.states(second) == ["running"]
    assert bench.queue.why(first, 3) == "at once"
    (bench.folder / "gate").touch()
    bench.finish(first)
    assert bench.states(first) == ["done"] * 4


def test_nodes(bench):
    """Elements are given the nodes in turn, and only as long as they run there."""
    with LocalQueue(workers=3, nodes=["n1", "n2"]) as queue:
        number = queue.submit(bench.job("echo $SLURMD_NODENAME", indices=range(3), output="%a"))
        while not queue.ended(number):
            queue.step(1)
    nodes = [element.node for element in queue.jobs[number].elements.values()]
    assert nodes == ["n1", "n2", "n1"]
    assert [bench.text(str(index)).strip() for index in range(3)] == nodes


@pytest.mark.parametrize(
    ("kind", "bad", "verdict"),
    [
        ("afterok", False, "runs"),
        ("afterok", True, "never"),
        ("afternotok", False, "never"),
        ("afternotok", True, "runs"),
        ("afterany", False, "runs"),
        ("afterany", True, "runs"),
    ],
)
def test_dependencies(bench, kind, bad, verdict):
    """A job that waits for an array waits for every element of it, and then for how it ended."""
    first = bench.submit(
        f"{AT_THE_GATE}; [ $SLURM_ARRAY_TASK_ID = 1 ] && exit {int(bad)}; exit 0", indices=(1, 2, 3)
    )
    second = bench.submit("true", after=[(kind, first)])
    bench.until(lambda: len(there(bench)) == 3, "three elements")
    assert bench.states(second) == ["waiting"]
    assert bench.queue.why(second, None) == "dependency"
    (bench.folder / "gate").touch()
    bench.finish(first)
    if verdict == "runs":
        assert bench.finish(second).state == "done"
        assert bench.queue.jobs[second].elements[None].began >= max(
            element.ended for element in bench.queue.jobs[first].elements.values()
        )
    else:
        bench.queue.step(0.1)
        assert bench.queue.why(second, None) == "never"
        assert bench.states(second) == ["waiting"]


def test_after_the_begin(bench):
    """``after`` waits until every element has begun, not until it has ended."""
    first = bench.submit(AT_THE_GATE, indices=range(5))
    second = bench.submit("true", after=[("after", first)])
    bench.until(lambda: len(there(bench)) == 4, "four elements")
    assert bench.queue.why(second, None) == "dependency"
    (bench.folder / "gate").touch()
    bench.finish(second)


def test_after_what_was_cancelled(bench):
    """What was cancelled has ended, and not well."""
    first = bench.submit("true", held=True)
    second = bench.submit("true", after=[("afternotok", first)])
    bench.queue.cancel(first)
    assert bench.finish(second).state == "done"


def test_hold_and_release(bench):
    """What is held does not start; what runs runs on."""
    held = bench.submit("true", held=True, indices=(1, 2))
    number = bench.submit(AT_THE_GATE, indices=(1, 2), at_once=1)
    bench.until(lambda: there(bench), "an element")
    bench.queue.hold(number)
    (bench.folder / "gate").touch()
    bench.until(lambda: "running" not in bench.states(number), "the end of the element")
    assert bench.states(number) == ["done", "held"]
    assert bench.states(held) == ["held", "held"]
    assert bench.queue.why(held, 1) == "held"
    bench.queue.release(held, [2])
    bench.queue.release(number)
    bench.finish(number)
    bench.until(lambda: bench.states(held) == ["held", "done"], "the released element")
    bench.queue.cancel(held)
    assert bench.states(held) == ["cancelled", "done"]


def test_begin(bench):
    """Nothing starts before the time that its job may begin at, and a step waits for it."""
    late = bench.submit("true", begin=time.time() + 600)
    assert bench.queue.step() == []
    assert bench.queue.why(late, None) == "begin"
    begin = time.time() + 0.2
    number = bench.submit("true", begin=begin)
    assert bench.queue.step(60) != []
    assert bench.finish(number).began >= begin
    bench.queue.cancel(late)


def test_steps_tell_what_changed(bench):
    """Every element is told when it begins and when it ends, in the order that it happened."""
    number = bench.submit("true", indices=(1, 2))
    told = []
    while not bench.queue.ended(number):
        told += [(job, element.index, element.state) for job, element in bench.queue.step(60)]
    assert {job for job, *_ in told} == {number}
    assert {index for _, index, state in told if state == "done"} == {1, 2}
    assert bench.queue.step() == []


def test_ids(bench):
    """Ids are spelled as each scheduler does; numbers go on from the first."""
    with LocalQueue(first=12, host="pbshost") as queue:
        numbers = [
            queue.submit(bench.job("true", dialect, held=True, indices=indices))
            for dialect in ("slurm", "pbs")
            for indices in ((None,), (4, 5))
        ]
        assert numbers == [12, 13, 14, 15]
        assert [queue.id(number) for number in numbers] == [
            "12",
            "13",
            "14.pbshost",
            "15[].pbshost",
        ]
        assert (queue.id(13, 4), queue.id(15, 4)) == ("13_4", "15[4].pbshost")
