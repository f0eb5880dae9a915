"""Servers for tests, each test process in a corner of its own, so that any number of them run at once.

==================  ==================================================================================
fixture             gives
==================  ==================================================================================
``redis_url``       this process's own database of the shared Redis, emptied before the test
``rabbitmq_url``    this process's own vhost of the shared RabbitMQ; queues of earlier tests are there
``postgres_url``    this process's own database, ``postgresql://``
``mariadb_url``     this process's own database, ``mysql://``
``sqlite_path``     where a new SQLite file may be made
``private_redis``   starts a Redis for this test alone: ``private_redis(maxmemory="1mb")``
``private_rabbitmq``  starts a RabbitMQ for this test alone (5 s each: share one where tests can)
``celery57``        the interpreter of an environment with Celery 5.7.0, for mixed fleets
==================  ==================================================================================

A test that asks for one of the first four, or is marked ``needs("redis")``, needs that server. With
``SERVICES=none`` (or a list without it) such a test is left out and named at the end of the run; otherwise
a server that does not answer is an error of that test, never a silent skip.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import private_servers  # noqa: E402  found through the line above
import services  # noqa: E402
import tenancy  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What a test needs because of a fixture that it asks for.
NEEDED_BY_FIXTURE = {
    "redis_url": "redis",
    "rabbitmq_url": "rabbitmq",
    "postgres_url": "postgres",
    "mariadb_url": "mariadb",
    "private_redis": "redis",
    "private_rabbitmq": "rabbitmq",
}

#: On a busy machine anything takes long: what bounds a test is its own time limit, not one of each example.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

LEFT_OUT = pytest.StashKey[list[str]]()


def needed(item: pytest.Item) -> set[str]:
    """Names of the servers that a test talks to."""
    marked = {name for marker in item.iter_markers("needs") for name in marker.args}
    fixtures = getattr(item, "fixturenames", ())
    return marked | {server for fixture, server in NEEDED_BY_FIXTURE.items() if fixture in fixtures}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "private_rabbitmq" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            # On a busy machine it may take two minutes to start, and each program that asks it some seconds.
            item.add_marker(pytest.mark.timeout(300))
    wanted = {service.name for service in services.wanted()}
    left_out = [item for item in items if not needed(item) <= wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if needed(item) <= wanted]
    config.stash[LEFT_OUT] += [item.nodeid for item in left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Under xdist only the workers collect; each hands its list to the process that reports.
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    output = getattr(node, "workeroutput", {})
    node.config.stash[LEFT_OUT] += output.get("left_out", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := sorted(set(config.stash[LEFT_OUT])):
        terminalreporter.section("left out: their servers are not in SERVICES")
        for nodeid in left_out:
            terminalreporter.line(nodeid)


def pytest_runtest_setup(item: pytest.Item) -> None:
    silent = [name for name in sorted(needed(item)) if not services.answers(services.SERVICES[name])]
    if silent:
        names = ", ".join(silent)
        pytest.fail(f"not answering on loopback: {names}; run `make services` or set SERVICES=none", pytrace=False)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A worker in this process sets the root logger's level, as users want, and later tests look at warnings."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture(scope="session")
def redis_database() -> Iterator[str]:
    """This process's Redis database; ask for `redis_url`, which empties it."""
    with tenancy.redis_database() as url:
        yield url


@pytest.fixture
def redis_url(redis_database: str) -> str:
    tenancy.redis_commands(int(redis_database.rpartition("/")[2]), "FLUSHDB")
    return redis_database


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    with tenancy.rabbitmq_vhost() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with tenancy.postgres_database() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    with tenancy.mariadb_database() as url:
        yield url


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "celery.sqlite"


@pytest.fixture
def private_redis(tmp_path_factory) -> Iterator[Callable[..., private_servers.PrivateRedis]]:
    """A function that starts a Redis for this test; its arguments are redis.conf settings."""
    yield from starter(private_servers.PrivateRedis, tmp_path_factory)


@pytest.fixture
def private_rabbitmq(tmp_path_factory) -> Iterator[Callable[..., private_servers.PrivateRabbitMQ]]:
    """A function that starts a RabbitMQ for this test."""
    yield from starter(private_servers.PrivateRabbitMQ, tmp_path_factory)


def starter(kind, tmp_path_factory) -> Iterator[Callable]:
    """Give a function that starts servers of this kind; kill what it started when the test is over."""
    started = []

    def start(**options):
        server = kind(tmp_path_factory.mktemp(kind.service), **options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def celery57() -> Path:
    """Python with Celery 5.7.0; the environment is made when it is not there yet."""
    with Path(tempfile.gettempdir(), "celeriac-celery57.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not a part of the `make test` that may have started us: its job server is closed to us.
        made = subprocess.run(
            ["make", "celery57"],
            cwd=ROOT,
            env={**os.environ, "MAKEFLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    assert made.returncode == 0, made.stderr
    return ROOT / ".venv-celery57" / "bin" / "python"
