"""An application of its own for each test, and the command line to run on it."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from celery import Celery
from celery.bin.celery import celery


@pytest.fixture
def app(sqlite_path):
    with Celery(
        "proj", set_as_current=False, broker=f"sqlite:///{sqlite_path}", backend=f"sqlite:///{sqlite_path}"
    ) as app:
        app.task(name="proj.add", shared=False)(lambda x, y: x + y)
        yield app


@pytest.fixture
def invoke(app, monkeypatch) -> Callable[..., Result]:
    """Run a command on the application: ``invoke("purge", "-f")``."""
    # Set, so that what the command exports is taken back after the test.
    for name in ("APP", "CELERY_APP", "NO_COLOR", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "")
    return lambda *argv, **options: CliRunner().invoke(celery, argv, **{"obj": app, **options})
