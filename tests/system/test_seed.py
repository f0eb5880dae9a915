"""The project of the user's own words, byte for byte, and with nothing but its two URLs changed or left out.

Each row starts ``celery -A proj worker -l INFO`` in a folder of its own, and makes the calls of the seed in another
process (`seed_session.py`). On RabbitMQ the project is the file itself: ``CELERY_BROKER_URL``, which wins over what the
file says, keeps it out of the virtual host where somebody's own tasks may wait.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_until

SEED = Path(__file__).resolve().parents[2] / "examples" / "seed" / "proj"
SESSION = Path(__file__).with_name("seed_session.py")
URLS = "             broker='amqp://',\n             backend='rpc://',\n"

#: broker, backend: a scheme, or None for left out.
ROWS = [
    ("amqp", "rpc"),
    (None, None),
    ("sqlite", "sqlite"),
    ("redis", "redis"),
    ("amqp", "redis"),
    ("amqp", "sqlite"),
    ("redis", "rpc"),
    ("redis", "sqlite"),
    ("sqlite", "redis"),
    ("sqlite", "rpc"),
    ("amqp", "db+sqlite"),
    ("redis", "db+sqlite"),
    ("redis", "db+postgresql"),
    ("amqp", "db+mysql"),
    ("sqlite", "db+postgresql"),
]
#: The server of each scheme, after which its fixture is named.
SERVERS = {"amqp": "rabbitmq", "redis": "redis", "db+postgresql": "postgres", "db+mysql": "mariadb"}

#: A task that lasts, beside those of the seed: for its states.
LASTING = """\
import os
import time

from .celery import app


@app.task(track_started=True)
def last(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)
    return "done"
"""

#: What the seed shows, line by line.
EXPECTED = {
    "called": 4,
    "delay": [4, False, True, "SUCCESS"],
    "apply_async": [6, 6],
    "failing": [True, False, "FAILURE", "TypeError"],
    "unknown": "PENDING",
    "states": ["PENDING", "STARTED", "SUCCESS"],
}


def url(scheme, role, request, folder):
    """Where a broker or a backend of this kind is, for this test alone."""
    if scheme in ("sqlite", "db+sqlite"):
        return f"{scheme}:///{folder / f'{role}.sqlite'}"
    if scheme in ("rpc", None):
        return scheme and "rpc://"
    given = request.getfixturevalue(f"{SERVERS[scheme]}_url")
    return f"db+{given}" if scheme.startswith("db+") else given


@pytest.fixture(params=[
    pytest.param(row, id=f"{row[0] or 'none'}-{row[1] or 'none'}",
                 marks=pytest.mark.needs(*{SERVERS[part] for part in row if part in SERVERS}))
    for row in ROWS
])  # fmt: skip
def project(request, tmp_path):
    """A folder with the project on this row's broker and backend, and the environment to run it in."""
    broker, backend = (url(part, role, request, tmp_path) for part, role in zip(request.param, ("broker", "results")))
    folder = tmp_path / "somewhere"
    shutil.copytree(SEED, folder / "proj", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    if request.param == ("amqp", "rpc"):
        environment["CELERY_BROKER_URL"] = broker
    else:
        chosen = "".join(
            f"             {role}={value!r},\n" for role, value in (("broker", broker), ("backend", backend)) if value
        )
        source = (folder / "proj" / "celery.py").read_text()
        assert URLS in source
        (folder / "proj" / "celery.py").write_text(source.replace(URLS, chosen))
    (folder / "proj" / "lasting.py").write_text(LASTING)
    return folder, environment


@pytest.fixture
def worker(project):
    """The worker of the project; it ends in good order."""
    folder, environment = project
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "proj", "worker", "-l", "INFO", "-I", "proj.lasting"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: " ready." in log.read_text() or process.poll() is not None, log.read_text, 40)
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_session(folder, environment, *arguments):
    """What the calls came to."""
    command = [sys.executable, SESSION, *arguments]
    environment = {**environment, "PYTHONPATH": str(folder)}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_the_seed_runs_as_it_is_written(project, worker):
    assert run_session(*project) == EXPECTED, worker.read_text()


def test_the_seed_runs_in_one_process_in_memory(tmp_path):
    shutil.copytree(SEED, tmp_path / "proj", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    environment |= {"CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": "cache+memory://"}
    (tmp_path / "proj" / "lasting.py").write_text(LASTING)
    assert run_session(tmp_path, environment, "--with-worker") == EXPECTED


@pytest.mark.parametrize("name", ["__init__.py", "celery.py", "tasks.py"])
def test_the_demo_differs_from_the_seed_in_its_urls_only(name):
    demo = SEED.parents[1] / "first-steps" / "proj" / name
    assert demo.read_text() == (SEED / name).read_text().replace(URLS, "")
