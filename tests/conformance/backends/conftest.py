"""The fixture `bench`: every result backend in turn that can do what the test is about, see `stores`; async tests."""

from __future__ import annotations

import asyncio
import inspect
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import stores  # noqa: E402  found through the line above


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_with(*capabilities): for backends with all of these")
    config.addinivalue_line("markers", "only_without(*capabilities): for backends with none of these")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 50))
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the backends that it is about; one that is about none of them is an error."""
    if "bench" not in metafunc.fixturenames:
        return
    with_, without = (
        {capability for mark in metafunc.definition.iter_markers(name) for capability in mark.args}
        for name in ("only_with", "only_without")
    )
    fitting = [
        pytest.param(name, marks=pytest.mark.needs(*store.servers))
        for name, store in stores.STORES.items()
        if with_ <= store.can and not without & store.can
    ]
    assert fitting, f"no backend is with {with_} and without {without}: {metafunc.definition.nodeid}"
    metafunc.parametrize("bench", fitting, indirect=True)


@pytest.fixture
def unused_name():
    return str(uuid.uuid4())


@pytest.fixture
def task_id():
    return str(uuid.uuid4())


@pytest.fixture
def bench(request: pytest.FixtureRequest):
    """Each backend in turn."""
    store = stores.STORES[request.param]
    bench = stores.Bench(request.param, store, request.getfixturevalue(store.place))
    yield bench
    bench.close()
