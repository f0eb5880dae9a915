"""Stages for workers (see `harness`): one for each test, or one with a worker that a module's tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Stage  # noqa: E402  found through the line above

BROKERS = [
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
]


def stage_of(name: str, request: pytest.FixtureRequest, folder: Path) -> Stage:
    """A stage on SQLite, on Redis, or on RabbitMQ with results in SQLite."""
    file = f"sqlite:///{folder / 'celery.sqlite'}"
    if name == "sqlite":
        return Stage(name, file, file, folder)
    if name == "redis":
        url = request.getfixturevalue("redis_database")
        return Stage(name, url, url, folder)
    return Stage(name, request.getfixturevalue("rabbitmq_url"), file, folder)


@pytest.fixture
def make_stage(request, tmp_path):
    """A function that makes a stage of the test's own on the broker of this name."""
    made = []

    def make(name: str) -> Stage:
        made.append(stage_of(name, request, tmp_path))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture(params=BROKERS)
def stage(request, make_stage):
    """A stage of the test's own, on each broker in turn."""
    return make_stage(request.param)


@pytest.fixture(scope="module", params=BROKERS)
def shared(request, tmp_path_factory):
    """A stage with a worker of two children that the tests of a module share; it ends in good order."""
    stage = stage_of(request.param, request, tmp_path_factory.mktemp("shared"))
    worker = stage.worker()
    yield stage
    try:
        assert worker.stop() == 0
    finally:
        stage.close()
