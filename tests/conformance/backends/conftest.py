"""The fixture `bench`: every result backend in turn, see `stores`; and async tests."""

from __future__ import annotations

import asyncio
import inspect
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import stores  # noqa: E402  found through the line above


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 50))
    return True


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.needs(*needs)) for name, needs in stores.STORES.items()])
def bench(request: pytest.FixtureRequest):
    """Each backend in turn."""
    name = request.param
    if name == "memory":
        url = f"cache+memory://{uuid.uuid4()}"
    elif name == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    elif name == "redis":
        url = request.getfixturevalue("redis_url")
    elif name == "database-sqlite":
        url = f"db+sqlite:///{request.getfixturevalue('sqlite_path')}"
    elif name == "database-postgres":
        url = "db+" + request.getfixturevalue("postgres_url")
    else:
        url = "db+" + request.getfixturevalue("mariadb_url")
    bench = stores.Bench(name, url)
    yield bench
    bench.close()
