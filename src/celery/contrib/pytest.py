"""Fixtures for pytest (API-106).

A plugin of every pytest run where this distribution is installed, so importing it loads next to nothing; naming it in
`pytest_plugins` as well does no harm. The fixtures whose names end in `_app` and `_worker` give applications and
workers. Those named `celery_...` and `use_celery_app_trap` otherwise are for overriding in a `conftest.py`: what they
return is how the first are made.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.contrib.testing.worker import TestWorkController

    AnyTask = Task[..., Any]

#: Set in the environment where workers run elsewhere (CONF-035): the worker fixtures give None.
NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "celery(**overrides): settings of the celery_app of this test")


# -- what may be overridden


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Fail tests that use the current application."""
    return False


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of applications."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of `Celery`."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of `celery.contrib.testing.worker.start_worker`, and so of the worker."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Let applications set up loggers."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that workers import."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str | Any:
    """Name or class of the pool of workers."""
    return "solo"


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[type[AnyTask]]:
    """Classes of tasks that the session's application has."""
    return []


# -- applications and workers


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,  # noqa: ARG001 - the documented signature
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Generator[Celery]:
    """One application for the whole session, the current and the default one."""
    with _application(celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    request: pytest.FixtureRequest,  # noqa: ARG001 - the documented signature
    celery_session_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[type[AnyTask]],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Generator[TestWorkController | None]:
    """One worker for the whole session."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Generator[Celery]:
    """An application for one test; its marker `celery` gives settings."""
    marker = request.node.get_closest_marker("celery")
    config = {**celery_config, **(marker.kwargs if marker else {})}
    with _application(config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        yield app


@pytest.fixture
def celery_worker(
    request: pytest.FixtureRequest,  # noqa: ARG001 - the documented signature
    celery_app: Celery,
    celery_includes: Sequence[str],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Generator[TestWorkController | None]:
    """A worker for one test."""
    with _worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Celery) -> None:
    """Make `celery_app` the current application."""
    celery_app.set_current()


@contextmanager
def _application(
    config: Mapping[str, Any], parameters: Mapping[str, Any], enable_logging: bool, use_trap: bool
) -> Generator[Celery]:
    from celery.contrib.testing.app import TestApp, setup_default_app

    options = {"set_as_current": False, "enable_logging": enable_logging, **parameters}
    with TestApp(config=config, **options) as app, setup_default_app(app, use_trap=use_trap):
        yield app


@contextmanager
def _worker(
    app: Celery, includes: Iterable[str], pool: Any, parameters: Mapping[str, Any]
) -> Generator[TestWorkController | None]:
    if NO_WORKER:
        yield None
        return
    from celery.contrib.testing.app import import_task_modules
    from celery.contrib.testing.worker import start_worker

    import_task_modules(app, includes)
    with start_worker(app, pool=pool, **parameters) as worker:
        yield worker
