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
import tenancy
from harness import wait_until
from secure_servers import SecureRabbitMQ, SecureRedis, Sentinel

SEED = Path(__file__).resolve().parents[2] / "examples" / "seed" / "proj"
SESSION = Path(__file__).with_name("seed_session.py")
URLS = "             broker='amqp://',\n             backend='rpc://',\n"
OPTIONS = "    result_expires=3600,\n"

#: Brokers that other processes can reach, and where results may be beside each of them.
BROKERS = ("sqlite", "redis", "amqp")
BACKENDS = ("sqlite", "redis", "rpc", "db+sqlite", "db+postgresql", "db+mysql")
#: Broker and backend, each by its scheme, or by None where it is left out.
ROWS = [
    (None, None),
    *((broker, backend) for broker in BROKERS for backend in BACKENDS),
    ("quorum", "rpc"),
    ("amqps", "rpc"),
    ("rediss", "rediss"),
    ("redis+socket", "redis+socket"),
    ("sentinel", "sentinel"),
]
#: Where one of the two ends with its process, the worker is a thread of the session.
ONE_PROCESS_ROWS = [
    ("memory", "cache+memory"),
    *(("memory", backend) for backend in BACKENDS),
    *((broker, "cache+memory") for broker in BROKERS),
]
#: The fixture of each scheme that needs a server, and that server.
SERVERS = {
    "amqp": ("rabbitmq_url", "rabbitmq"),
    "quorum": ("vhost_url", "rabbitmq"),
    "amqps": ("amqps_url", "rabbitmq"),
    "redis": ("redis_url", "redis"),
    "rediss": ("rediss_url", "redis"),
    "redis+socket": ("redis_socket_url", "redis"),
    "sentinel": ("sentinel_url", "redis"),
    "db+postgresql": ("postgres_url", "postgres"),
    "db+mysql": ("mariadb_url", "mariadb"),
}

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


@pytest.fixture(scope="module")
def secure_redis(tmp_path_factory):
    with SecureRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def rediss_url(secure_redis):
    return (
        f"rediss://127.0.0.1:{secure_redis.tls_port}/0?ssl_cert_reqs=required&ssl_ca_certs={secure_redis.certificate}"
    )


@pytest.fixture
def redis_socket_url(secure_redis):
    return f"redis+socket://{secure_redis.socket}?virtual_host=1"


@pytest.fixture
def sentinel_url(secure_redis, tmp_path_factory):
    with Sentinel(tmp_path_factory.mktemp("sentinel"), secure_redis) as sentinel:
        yield f"{sentinel.url}/2?master_name=main"


@pytest.fixture
def vhost_url():
    """A virtual host where the queue of the seed has not been declared yet."""
    with tenancy.rabbitmq_vhost() as url:
        yield url


@pytest.fixture
def amqps_url(tmp_path_factory, monkeypatch):
    """The authority is one of those that the machine knows."""
    with SecureRabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        yield server.tls_url


def url(scheme, role, request, folder):
    """Where a broker or a backend of this kind is, for this test alone."""
    if scheme in ("sqlite", "db+sqlite"):
        return f"{scheme}:///{folder / f'{role}.sqlite'}"
    if scheme not in SERVERS:
        return scheme and f"{scheme}://"
    given = request.getfixturevalue(SERVERS[scheme][0])
    return f"db+{given}" if scheme.startswith("db+") else given


def cases(rows):
    """The rows as parameters of a test, each with the servers that it needs."""
    return [
        pytest.param(
            row,
            id=f"{row[0] or 'none'}-{row[1] or 'none'}",
            marks=pytest.mark.needs(*{SERVERS[scheme][1] for scheme in row if scheme in SERVERS}),
        )
        for row in rows
    ]


@pytest.fixture
def project(row, request, tmp_path):
    """A folder with the project on this row's broker and backend, and the environment to run it in."""
    broker, backend = (url(part, role, request, tmp_path) for part, role in zip(row, ("broker", "results")))
    folder = tmp_path / "somewhere"
    shutil.copytree(SEED, folder / "proj", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    if row == ("amqp", "rpc"):
        environment["CELERY_BROKER_URL"] = broker
    else:
        chosen = "".join(
            f"             {role}={value!r},\n" for role, value in (("broker", broker), ("backend", backend)) if value
        )
        edit(folder / "proj" / "celery.py", URLS, chosen)
    if row[0] == "quorum":
        # A virtual host may make quorum queues unasked; in 3.10 they have to be asked for.
        edit(folder / "proj" / "celery.py", OPTIONS, f"{OPTIONS}    task_default_queue_type='quorum',\n")
    (folder / "proj" / "lasting.py").write_text(LASTING)
    return folder, environment


def edit(file, old, new):
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new))


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


@pytest.mark.parametrize("row", cases(ROWS))
def test_the_seed_runs_as_it_is_written(project, worker):
    assert run_session(*project) == EXPECTED, worker.read_text()


@pytest.mark.parametrize("row", cases(ONE_PROCESS_ROWS))
def test_the_seed_runs_in_one_process(project):
    assert run_session(*project, "--with-worker") == EXPECTED


@pytest.mark.parametrize("name", ["__init__.py", "celery.py", "tasks.py"])
def test_the_demo_differs_from_the_seed_in_its_urls_only(name):
    demo = SEED.parents[1] / "first-steps" / "proj" / name
    assert demo.read_text() == (SEED / name).read_text().replace(URLS, "")
