"""The pytest plugin: a test-suite in the style of Celery's manual, run in a process of its own (API-106)."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

#: A program: shared tasks, of which one is imported by the worker only, and a class.
PROGRAM = {
    "shop.py": """
from celery import Task, current_app, shared_task

@shared_task
def total(prices):
    return sum(prices)

@shared_task(bind=True, max_retries=2)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries

@shared_task
def refuse():
    raise ValueError("sold out")

class Receipt(Task):
    name = "shop.receipt"

    def run(self, number):
        return f"receipt {number}"
""",
    "shop_extra.py": """
from celery import shared_task

@shared_task
def extra(x):
    return x * 10
""",
}

CONFTEST = """
import pytest
import shop

@pytest.fixture(scope="session")
def celery_config():
    return {"task_track_started": True, "result_extended": True, "task_default_queue": "shop"}

@pytest.fixture(scope="session")
def celery_parameters():
    return {"strict_typing": False, "task_cls": shop.Task}

@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("shop", "high-prio"), "shutdown_timeout": 20}

@pytest.fixture(scope="session")
def celery_includes():
    return ["shop_extra"]

@pytest.fixture(scope="session")
def celery_class_tasks():
    return [shop.Receipt]

@pytest.fixture(scope="session")
def celery_enable_logging():
    return False

@pytest.fixture(scope="session")
def celery_worker_pool():
    return "solo"
"""

#: What Celery runs as well.
SUITE = """
import pytest
import shop
from celery import current_app, shared_task
from celery.exceptions import TimeoutError
from celery.result import AsyncResult

def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16

def test_the_same_name_again(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y + 1

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 17

def test_settings(celery_app):
    assert celery_app.conf.task_track_started is True
    assert celery_app.conf.broker_url == "memory://"
    assert celery_app.conf.result_backend == "cache+memory://"
    assert celery_app.conf.accept_content == {"json"}
    assert celery_app.main == "celery.tests"
    assert celery_app.strict_typing is False

@pytest.mark.celery(result_backend="rpc://", task_default_queue="marked")
def test_marker(celery_app):
    assert celery_app.conf.result_backend == "rpc://"
    assert celery_app.conf.task_default_queue == "marked"
    assert celery_app.conf.task_track_started is True

@pytest.mark.celery(task_default_queue="of the class")
class TestMarkedClass:
    def test_inherits(self, celery_app):
        assert celery_app.conf.task_default_queue == "of the class"

    @pytest.mark.celery(task_default_queue="of the test")
    def test_overrides(self, celery_app):
        assert celery_app.conf.task_default_queue == "of the test"

@pytest.mark.usefixtures("depends_on_current_app")
def test_shared_task_in_place():
    @shared_task
    def add(x, y):
        return x + y

    assert add(2, 3) == 5
    assert add.apply((2, 3)).get() == 5

def test_current_app(celery_app, depends_on_current_app):
    assert current_app._get_current_object() is celery_app

def test_shared_tasks(celery_app, celery_worker):
    assert shop.total.delay([1, 2, 3]).get(timeout=10) == 6
    assert shop.flaky.delay().get(timeout=10) == 2
    with pytest.raises(ValueError, match="sold out"):
        shop.refuse.delay().get(timeout=10)
    assert shop.total.apply_async(([4],), queue="high-prio").get(timeout=10) == 4
    result = celery_app.send_task("shop.total", ([5],))
    assert isinstance(result, AsyncResult)
    assert result.get(timeout=10) == 5
    assert result.successful()

def test_eager(celery_app):
    celery_app.conf.task_always_eager = True
    assert celery_app.tasks["shop.total"].delay([1]).get() == 1

@pytest.fixture(scope="module")
def session(celery_session_app, celery_session_worker):
    return celery_session_app

def test_session_class_task(session):
    assert session.tasks["shop.receipt"].delay(7).get(timeout=10) == "receipt 7"

def test_session_current_app(session):
    assert current_app._get_current_object() is session
    assert shop.total.delay([2]).get(timeout=10) == 2
"""

#: In Celery 5.7 only the first worker knows the tasks of included modules, and none knows a task that was declared
#: later, until its `reload`.
INCLUDES = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_included_every_time(celery_app, celery_worker, number):
    import shop_extra
    assert shop_extra.extra.delay(number).get(timeout=10) == 10 * number

def test_declared_later(celery_app, celery_worker):
    @celery_app.task
    def later():
        return "later"

    assert later.delay().get(timeout=10) == "later"

def test_included_in_the_session(celery_session_app, celery_session_worker):
    import shop_extra
    assert shop_extra.extra.delay(5).get(timeout=10) == 50
"""

TRAPPED = """
import pytest
from celery import current_app

@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True

def test_trapped(celery_app):
    with pytest.raises(RuntimeError, match="Test depends on current_app"):
        current_app.tasks

def test_let_out(celery_app, depends_on_current_app):
    assert current_app.tasks is celery_app.tasks
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest on files, and give its exit status and what became of each test."""

    def run(*arguments, python=sys.executable, plugin=None, env=(), timeout=50, **files):
        conftest = CONFTEST if plugin is None else f"{CONFTEST}\npytest_plugins = {plugin!r}\n"
        for name, text in {**PROGRAM, "conftest.py": conftest}.items():
            (tmp_path / name).write_text(text)
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
        modules = [f"{name}.py" for name in files]
        done = subprocess.run(
            [python, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments, *modules],
            cwd=tmp_path,
            env={**os.environ, **dict(env)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        outcomes = dict(re.findall(r"^\w+\.py::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", done.stdout, re.MULTILINE))
        print(done.stdout, done.stderr)
        return done.returncode, outcomes

    return run


def test_a_suite_for_celery_runs_unchanged(run):
    status, outcomes = run("-W", "error", plugin=("celery.contrib.pytest",), test_shop=SUITE)
    assert set(outcomes.values()) == {"PASSED"}
    assert len(outcomes) == SUITE.count("def test_")
    assert status == 0


@pytest.mark.slow
@pytest.mark.timeout(120)  # each of Celery's workers takes five seconds to stop
def test_celery_gives_the_same_outcomes(run, celery57):
    plugin = ("celery.contrib.pytest",)
    _, outcomes = run(python=str(celery57), plugin=plugin, env={"PYTHONPATH": ""}, timeout=100, test_shop=SUITE)
    assert set(outcomes.values()) == {"PASSED"}
    assert len(outcomes) == SUITE.count("def test_")


def test_tasks_of_included_modules_are_there_for_every_worker(run):
    status, _ = run("-W", "error", test_includes=INCLUDES)
    assert status == 0


def test_a_prefork_pool_can_be_chosen(run):
    fixture = "import pytest\n@pytest.fixture(scope='session')\ndef celery_worker_pool():\n    return 'prefork'\n"
    status, _ = run("-W", "error", "-k", "test_shared_tasks or session", test_shop=SUITE + fixture)
    assert status == 0


def test_the_trap_catches_uses_of_the_current_application(run):
    status, _ = run(test_trap=TRAPPED)
    assert status == 0


def test_no_worker_is_started_where_workers_run_elsewhere(run):
    test = "def test_it(celery_worker, celery_session_worker): assert celery_worker is celery_session_worker is None"
    status, _ = run(env={"NO_WORKER": "1"}, test_none=test)
    assert status == 0


def test_the_plugin_needs_no_naming_and_loads_next_to_nothing(run):
    test = """
import sys

def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("celery.contrib.pytest")
    assert {name for name in sys.modules if name.startswith("celery")} == {
        "celery", "celery.contrib", "celery.contrib.pytest"
    }
"""
    (entry,) = entry_points(group="pytest11", name="celery.contrib.pytest")
    assert entry.value == "celery.contrib.pytest"
    status, _ = run("--noconftest", test_light=test)
    assert status == 0
