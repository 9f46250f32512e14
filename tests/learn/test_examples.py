"""Each example of the course runs, and prints the answers that its page shows."""

import subprocess

import pytest
from tests.learn.exercises import commands, write_machine
from tests.learn.shown import same, written


@pytest.fixture
def place(exercise, request):
    """The environment that the exercise's commands need."""
    return request.getfixturevalue(exercise.needs)


@pytest.fixture(scope="session")
def writes(request):
    """Whether the pages are written, instead of compared."""
    asked = request.config.getoption("--write-pages", False)
    if asked:
        write_machine()
    return asked


def printed(command, folder, environment):
    """What a command shows, standard output and standard error together."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.stdout


def test_an_exercise_prints_what_its_page_shows(exercise, place, folder, writes):
    """What a page shows after a command is what the command prints, but for what is measured."""
    assert exercise.sessions(), f"{exercise.page.name} does not run {exercise.example.name}"
    for session in exercise.sessions():
        now = ""
        for command, shown in commands(session):
            found = printed(command, folder, place)
            now += f"$ {command}\n{written(shown, found)}"
            anew = writes and "..." not in shown and "Traceback" not in found
            assert anew or same(shown, found), f"$ {command}\n{found}"
        if writes:
            exercise.page.write_text(exercise.page.read_text().replace(session, now))
