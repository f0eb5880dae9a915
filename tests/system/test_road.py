"""The road that `docs/internals.md` shows is the one that a task takes: the list of steps is read from the page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import wait_until

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "internals.md"
PACKAGE = HERE.parents[1] / "src" / "celery"
LINE = re.compile(r"(?P<role>producer|worker|child)? +(?P<name>[\w.]+) +(?P<file>[\w/<>]+\.py)(?: .*)?")


class Step(NamedTuple):
    """A call: in which process, of what."""

    role: str
    file: str
    name: str


def steps(broker):
    """The road of the page, for a broker."""
    block = PAGE.read_text().partition("## The road\n")[2].split("```")[1]
    found, role = [], ""
    for line in block.strip("\n").splitlines()[1:]:
        match = LINE.fullmatch(line)
        assert match, f"not a step: {line!r}"
        role = match["role"] or role
        found.append(Step(role, match["file"].replace("<broker>", broker), match["name"]))
    return found


@pytest.mark.parametrize("broker", ["sqlite", "redis", "amqp"])
def test_the_road_names_files_that_are_there(broker):
    assert [step for step in steps(broker) if not (PACKAGE / step.file).is_file()] == []


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def url(request, sqlite_path):
    return f"sqlite:///{sqlite_path}" if request.param == "sqlite" else request.getfixturevalue("redis_url")


def test_a_task_takes_the_road(url, tmp_path):
    road = steps(url.partition(":")[0])
    log, output = tmp_path / "log", tmp_path / "worker.log"
    log.touch()
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "ROAD_URL": url,
        "ROAD_LOG": str(log),
        "ROAD_STEPS": json.dumps([[step.file, step.name] for step in road]),
    }
    command = [sys.executable, "-m", "celery", "-A", "road", "worker", "-c", "1", "-l", "INFO"]
    with output.open("wb") as stream:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_until(lambda: " ready." in output.read_text() or worker.poll() is not None, output.read_text, 40)
        producer = subprocess.run(
            [sys.executable, HERE / "road.py"], env=environment, capture_output=True, text=True, timeout=50, check=False
        )
        assert producer.returncode == 0, producer.stderr + output.read_text()
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    pid, value = producer.stdout.split()
    assert value == "4"
    roles = {int(pid): "producer", worker.pid: "worker"}
    calls = [line.split() for line in sorted(log.read_text().splitlines(), key=lambda line: int(line.split()[0]))]
    taken = [Step(roles.get(int(pid), "child"), file, name) for _, pid, file, name in calls]
    assert not detour(road, taken[taken.index(road[0]) :])


def detour(road, taken):
    """What was not taken after the step before it; empty when the whole road was, in its order."""
    at = 0
    for step in road:
        if step not in taken[at:]:
            return f"{step} does not come after {taken[at - 1]}; what does: {taken[at:]}"
        at = taken.index(step, at) + 1
    return ""
