"""The fixture `bench` (every driver in turn, see `drivers`), and async tests."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import drivers  # noqa: E402  found through the line above
from redis_server import RedisServer  # noqa: E402  as this one


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests on a loop of their own, and end those that hang while it can still be told where."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    marker = pyfuncitem.get_closest_marker("timeout")
    limit = marker.args[0] if marker is not None else float(pyfuncitem.config.getini("timeout"))
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), limit - 10))
    return True


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.needs(*servers)) for name, servers in drivers.DRIVERS.items()],
)
def bench(request: pytest.FixtureRequest):
    """Each driver in turn."""
    name = request.param
    if name == "memory":
        made = drivers.MemoryBench(name, f"memory://{uuid.uuid4()}")
    elif name == "sqlite":
        made = drivers.SqliteBench(name, f"sqlite:///{request.getfixturevalue('sqlite_path')}")
    elif name == "redis":
        made = drivers.RedisBench(name, request.getfixturevalue("redis_url"))
    else:
        made = drivers.AmqpBench(name, request.getfixturevalue("rabbitmq_url"))
    yield made
    made.close()


@pytest.fixture
def server(private_redis):
    """A Redis of our own."""
    with contextlib.closing(RedisServer(private_redis().url)) as server:
        yield server
