"""What a program pays for before its first task is sent, counted in modules: seconds vary, these do not.

Celery 5.7.0 loads about 280 modules for its application class and 330 more for the first `delay()`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

#: Modules beyond those of a bare interpreter.
IMPORT_CELERY = 15
APPLICATION = 61
FIRST_DELAY = 175
#: Of the main process of a worker on Redis, which its nursery and its children share. Two are for stores that stay away
#: when it stops: 3 ms (`celery.worker.leaving`, and a thread that no exit waits for).
WORKER = 274

#: Each costs more than all of ours together, and a program that only sends tasks needs none.
NEVER = {
    "asyncio",
    "concurrent.futures",
    "inspect",
    "ipaddress",
    "kombu",
    "logging.handlers",
    "multiprocessing",
    "pathlib",
    "redis",
    "sqlalchemy",
    "unicodedata",
    "urllib.parse",
}

#: What it takes to send, and to no more than declare tasks does not.
NOT_BEFORE_THE_FIRST_CALL = {"json", "logging", "msgspec", "socket", "zoneinfo", "celery.brokers", "celery.wire"}

APPLICATION_CODE = "from celery import Celery; app = Celery('budget')"
FIRST_DELAY_CODE = """
from celery import Celery
app = Celery('budget')
@app.task
def add(x, y):
    return x + y
add.delay(2, 2)
"""


def modules_loaded_by(code: str, **environment: str) -> set[str]:
    """Names in `sys.modules` after the code has run in a new interpreter, less those of a bare one."""
    script = f"import sys, json; bare = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - bare)))"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_import_celery_is_light():
    modules = modules_loaded_by("import celery")
    assert not modules & NEVER
    assert len(modules) <= IMPORT_CELERY, sorted(modules)


def test_an_application_is_light():
    modules = modules_loaded_by(APPLICATION_CODE)
    assert not modules & (NEVER | NOT_BEFORE_THE_FIRST_CALL)
    assert len(modules) <= APPLICATION, sorted(modules)


def test_an_application_sends_its_first_task_on_redis_without_heavy_modules(redis_url):
    modules = modules_loaded_by(FIRST_DELAY_CODE, CELERY_BROKER_URL=redis_url)
    # msgspec's C module imports typing_extensions, and that inspect.
    assert modules & NEVER <= {"inspect"}
    assert len(modules) <= FIRST_DELAY, sorted(modules)


def test_a_worker_starts_without_what_only_some_need():
    modules = modules_loaded_by(
        "import celery.bin.worker, celery.apps.worker, celery.concurrency.prefork, celery.brokers.redis.receiver"
    )
    assert len(modules) <= WORKER, sorted(modules)
    assert not modules & {"kombu", "redis", "sqlalchemy", "multiprocessing", "pathlib", "unicodedata", "urllib.parse"}
    # Each of the processes of an idle worker would pay for these.
    assert not modules & {"importlib.metadata", "zipfile", "email.message", "tempfile"}
