"""The Django fixup in a real project: a folder, a SQLite database, processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("django")

FILES = {
    "shop/__init__.py": "from shop.celery import app\n",
    "shop/celery.py": """
        from celery import Celery
        from celery.signals import worker_init

        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()

        @worker_init.connect
        def connect(**_):
            from django.db import connection
            connection.ensure_connection()
    """,
    "shop/settings.py": """
        from pathlib import Path

        SECRET_KEY = "x"
        USE_TZ = True
        TIME_ZONE = "Europe/Berlin"
        INSTALLED_APPS = ["orders"]
        ROOT_URLCONF = "shop.urls"
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        ALLOWED_HOSTS = ["*"]
        CELERY_TASK_DEFAULT_QUEUE = "shop"
        CELERY_WORKER_CONCURRENCY = 1
        CELERY_DB_REUSE_MAX = None
    """,
    "shop/urls.py": """
        from django.http import JsonResponse
        from django.urls import path
        from orders.tasks import count

        async def start(request):
            result = await count.adelay()
            return JsonResponse({"id": result.id})

        urlpatterns = [path("start", start)]
    """,
    "orders/__init__.py": "",
    "orders/apps.py": """
        from django.apps import AppConfig
        from django.core.checks import Warning, register

        class Orders(AppConfig):
            name = "orders"

        @register()
        def odd(app_configs, **kwargs):
            return [Warning("orders are odd", id="orders.W001")]
    """,
    "orders/models.py": """
        from django.db import models

        class Order(models.Model):
            number = models.IntegerField()
    """,
    "orders/tasks.py": """
        from celery import shared_task
        from django.db import connection

        from orders.models import Order

        @shared_task
        def count():
            return Order.objects.count()

        @shared_task
        async def acount():
            return await Order.objects.acount()

        @shared_task
        def is_open():
            was_open = connection.connection is not None
            Order.objects.count()
            return was_open

        @shared_task
        async def ais_open():
            from asgiref.sync import sync_to_async
            was_open = await sync_to_async(lambda: connection.connection is not None)()
            await Order.objects.acount()
            return was_open
    """,
}

SET_UP = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
"""


class Project:
    """A Django project in a folder."""

    def __init__(self, folder, **settings):
        self.folder = folder
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        with (folder / "shop/settings.py").open("a") as file:
            file.writelines(f"{name} = {value!r}\n" for name, value in settings.items())
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CELERY")},
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "CELERY_HOME": str(folder),
        }

    def run(self, code, **environment):
        """The last line that a process of the project prints, from JSON."""
        ended = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code)],
            cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True, timeout=50,
            check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    def worker(self, *argv):
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "shop", "worker", "-l", "INFO", *argv],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_settings_and_tasks_are_those_of_the_project(project):
    found = project.run(SET_UP + """
import json
from shop import app
app.loader.import_default_modules()
print(json.dumps([
    app.conf.task_default_queue, str(app.timezone), sorted(n for n in app.tasks if n.startswith("orders")),
    [cls.__name__ for cls in type(app.tasks["orders.tasks.count"]).__mro__], app.loader.now().tzinfo is not None,
]))
""")
    queue, timezone, tasks, classes, aware = found
    assert (queue, timezone, aware) == ("shop", "Europe/Berlin", True)
    assert tasks == ["orders.tasks.acount", "orders.tasks.ais_open", "orders.tasks.count", "orders.tasks.is_open"]
    assert "DjangoTask" in classes


def test_a_task_class_of_the_users_own_is_kept(project):
    assert project.run("""
import json
from celery import Celery, Task
class Mine(Task):
    abstract = True
app = Celery("other", task_cls=Mine, set_as_current=False)
print(json.dumps([issubclass(app.Task, Mine), hasattr(app.Task, "delay_on_commit")]))
""") == [True, False]


@pytest.mark.parametrize(("skip", "told"), [("", True), ("1", False)])
def test_what_the_system_checks_find_is_logged(project, skip, told):
    assert project.run("""
import json, logging
heard = []
class Ear(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())
logging.getLogger("celery.fixups.django").addHandler(Ear())
from shop import app
app.loader.import_default_modules()
print(json.dumps(any("orders are odd" in text for text in heard)))
""", CELERY_SKIP_CHECKS=skip) is told  # fmt: skip


def test_a_task_is_sent_on_commit_and_not_on_rollback(project):
    assert project.run(SET_UP + """
import json
from django.db import transaction
from shop import app
from orders.tasks import count
def waiting():
    return app.publisher.run(lambda sender: sender.length("shop"))
lengths = []
with transaction.atomic():
    count.delay_on_commit()
    count.apply_async_on_commit(kwargs={})
    lengths.append(waiting())
lengths.append(waiting())
try:
    with transaction.atomic():
        count.delay_on_commit()
        raise LookupError
except LookupError:
    lengths.append(waiting())
count.delay_on_commit()
lengths.append(waiting())
print(json.dumps(lengths))
""") == [0, 2, 2, 3]


def test_an_async_view_sends_a_task(project):
    reply, length = project.run(SET_UP + """
import asyncio, json
from django.test import AsyncClient
from shop import app
async def visit():
    return (await AsyncClient().get("/start")).json()
print(json.dumps([asyncio.run(visit()), app.publisher.run(lambda sender: sender.length("shop"))]))
""")
    assert len(reply["id"]) == 36
    assert length == 1


CALL_THRICE = SET_UP + """
import json
from shop import app
from orders.models import Order
from orders import tasks
Order.objects.create(number=1)
print(json.dumps({name: [getattr(tasks, name).delay().get(timeout=30) for _ in range(3)]
                  for name in ("is_open", "ais_open", "count", "acount")}))
"""


@pytest.mark.parametrize(
    ("settings", "argv", "open_before"),
    [
        pytest.param({}, (), False, id="closed after each task"),
        pytest.param({"CELERY_DB_REUSE_MAX": 1000}, (), True, id="reused by CELERY_DB_REUSE_MAX"),
        pytest.param({}, ("-P", "solo"), False, id="solo"),
        pytest.param({}, ("--pool-start-method", "spawn"), False, id="spawn"),
    ],
)
def test_a_worker_runs_tasks_and_closes_connections_around_them(tmp_path, settings, argv, open_before):
    project = Project(tmp_path, **settings)
    worker = project.worker(*argv)
    try:
        values = project.run(CALL_THRICE)
    finally:
        worker.terminate()
        said, _ = worker.communicate(timeout=30)
        print(said)
    assert (values["count"], values["acount"]) == ([1, 1, 1], [1, 1, 1])
    assert values["is_open"][0] is False, "a child must not use its parent's connection"
    assert values["is_open"][1:] == values["ais_open"][1:] == [open_before, open_before], said
    assert "Traceback" not in said


def test_without_django_the_application_works_and_warns(tmp_path):
    (tmp_path / "django.py").write_text("raise ImportError('not here')")
    ended = subprocess.run(
        [sys.executable, "-c", "from celery import Celery; print(Celery('x').main)"],
        cwd=tmp_path, env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"}, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert ended.stdout == "x\n", ended.stderr
    assert "FixupWarning: DJANGO_SETTINGS_MODULE is set, but Django is not installed" in ended.stderr
