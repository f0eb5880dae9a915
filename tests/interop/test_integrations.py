"""Packages that extend or watch Celery do so with us: their own released versions, in an environment of their own."""

import gzip
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGES = (
    "django-celery-results==2.6.0",
    "opentelemetry-instrumentation-celery==0.66b2",
    "opentelemetry-sdk==1.45.2",
    "sentry-sdk==2.75.0",
)
#: No project's work, and no worker's end, takes longer, in seconds.
SOON = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command, **options):
    """What a command printed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with both of our distributions and the packages."""
    folder = tmp_path_factory.mktemp("environment")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, ROOT / "packaging" / "celery")
    python = folder / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", *folder.glob("*.whl"), *PACKAGES)
    return python


@pytest.fixture
def project(python, tmp_path):
    """Run a project's worker and its client; gives what the client printed, and what the project's processes told."""

    def work(name, **variables):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY", "PYTHON"))}
        environment = {**inherited, "PYTHONPATH": str(HERE / "integrations"), "PROJECT": str(tmp_path), **variables}
        options = {"env": environment, "cwd": tmp_path}
        with (tmp_path / "log").open("wb") as log:
            command = [python, "-m", "celery", "-A", name, "worker", "-c", "2"]
            worker = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            printed = run(python, "-m", name, timeout=SOON, **options)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SOON) == 0, (tmp_path / "log").read_text()
        finally:
            worker.kill()
            worker.wait()
        told = tmp_path / "told"
        return printed, [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    return work


def test_django_celery_results_keeps_results(project):
    assert json.loads(project("django_results")[0]) == {
        "value": 5,
        "row": ["SUCCESS", "django_results.add", '"(2,)"', "\"{'y': 3}\"", "5", True],
        "error": ["KeyError('nothing')", "FAILURE", "django_results.fail", True],
        "group": [True, 5],
        "deleted": None,
        "forgotten": [None, "PENDING"],
    }


def test_opentelemetry_follows_tasks_from_the_call_to_their_end(project):
    spans = project("spans")[1]
    by_id = {span["span"]: span for span in spans}
    (client,) = (span for span in spans if span["name"] == "client")
    assert {span["trace"] for span in spans} == {client["trace"]}
    ran = [span for span in spans if span["name"].startswith("run/")]
    assert sorted(span["name"] for span in ran) == [
        "run/spans.add", "run/spans.again", "run/spans.again", "run/spans.fail", "run/spans.later",
    ]  # fmt: skip
    for span in ran:
        assert by_id[span["parent"]]["name"] == span["name"].replace("run/", "apply_async/")
        assert span["attributes"]["messaging.destination"] == "celery"
        failed = span["name"] == "run/spans.fail"
        assert (span["status"], span["errors"]) == (("ERROR", ["KeyError"]) if failed else ("UNSET", []))
    assert sorted(span["attributes"]["celery.state"] for span in ran if span["name"] == "run/spans.again") == [
        "RETRY", "SUCCESS",
    ]  # fmt: skip


@pytest.fixture
def sentry():
    """The address of a server that takes what Sentry's SDK sends, and the items that have come."""
    items = []

    class Store(BaseHTTPRequestHandler):
        def do_POST(self):
            envelope = self.rfile.read(int(self.headers["Content-Length"]))
            lines = gzip.decompress(envelope).splitlines()
            items.extend((json.loads(lines[at])["type"], json.loads(lines[at + 1])) for at in range(1, len(lines), 2))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Not to be printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://key@127.0.0.1:{server.server_port}/1", items
        server.shutdown()
        thread.join()


@pytest.mark.skipif(importlib.util.find_spec("celery.beat") is None, reason="Sentry asks for celery.beat")
def test_sentry_is_told_of_tasks_and_of_what_they_raise(project, sentry):
    address, items = sentry
    good, bad = json.loads(project("events", PROJECT_SENTRY=address)[0])
    told = [(kind, each, each["contexts"]["trace"]) for kind, each in items if kind in ("event", "transaction")]
    (client,) = (trace for _, each, trace in told if each["transaction"] == "client")
    assert {trace["trace_id"] for *_, trace in told} == {client["trace_id"]}
    found = {(kind, each["tags"]["celery_task_id"]): each for kind, each, trace in told if trace is not client}
    assert set(found) == {("transaction", good), ("transaction", bad), ("event", bad)}
    assert found["transaction", good]["contexts"]["trace"]["status"] == "ok"
    assert [span["op"] for span in found["transaction", good]["spans"]] == ["queue.process"]
    assert found["transaction", bad]["contexts"]["trace"]["status"] == "internal_error"
    assert [error["type"] for error in found["event", bad]["exception"]["values"]] == ["KeyError"]
