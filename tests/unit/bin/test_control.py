"""``status``, ``inspect`` and ``control``, against a running worker (CLI-083..088)."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from celery.bin.celery import celery as command_line

PROJECT = """
from celery import Celery
from celery.worker.control import control_command, inspect_command

app = Celery("proj", broker="sqlite:///{path}", backend="sqlite:///{path}", set_as_current=False)

@app.task(shared=False)
def add(x, y):
    return x + y

@inspect_command(args=[("factor", int)], variadic="words", signature="<factor> [word1 [word2 ...]]")
def repeat(state, factor, words=()):
    "Repeat words."
    return [word * factor for word in words]

@control_command()
def fail(state):
    "Fail."
    raise LookupError("on purpose")

@control_command(visible=False)
def hidden(state):
    return {{"ok": "found"}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with an application, and the application as this process sees it."""
    folder = tmp_path_factory.mktemp("project")
    path = folder / "proj.py"
    path.write_text(PROJECT.format(path=folder / "celery.sqlite"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("proj_for_control", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.app:
        yield folder, module.app


@pytest.fixture(scope="module")
def worker(project):
    """A running worker, w1@h."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "proj", "-q", "worker", "-l", "INFO", "-c", "1", "-n", "w1@h"],
        cwd=project[0], env=inherited, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any(" ready." in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def celery(project, worker, monkeypatch):
    """Run a command of ``celery`` beside the worker."""
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    return lambda *argv: CliRunner().invoke(command_line, argv, obj=project[1])


# Where nodes are named, the reply of the last one ends the wait.
W1 = ("-d", "w1@h")


def test_status_lists_the_workers(celery):
    ended = celery("status", *W1)
    assert (ended.exit_code, ended.stdout) == (0, "->  w1@h: OK\n\n1 node online.\n")


def test_status_as_json_still_counts(celery):
    assert celery("status", "-j", *W1).stdout == '{"w1@h": {"ok": "pong"}}\n\n1 node online.\n'


def test_inspect_shows_replies_and_counts_nodes(celery):
    assert celery("inspect", *W1, "ping").stdout == "->  w1@h: OK\n        pong\n\n1 node online.\n"
    assert celery("inspect", *W1, "active").stdout == "->  w1@h: OK\n    - empty -\n\n1 node online.\n"
    assert "    * proj.add\n" in celery("inspect", *W1, "registered").stdout


def test_a_quiet_inspect_shows_only_replies(celery):
    assert celery("-q", "inspect", *W1, "ping").stdout == "w1@h: OK\n        pong\n"


def test_inspect_as_json_prints_nothing_else(celery):
    ended = celery("inspect", *W1, "-j", "stats")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["w1@h"]["pid"]


def test_words_become_the_arguments_that_a_command_declares(celery):
    assert celery("inspect", *W1, "repeat", "2", "ab", "c").stdout.splitlines()[1:3] == ["    * abab", "    * cc"]


def test_control_prints_no_count_and_json_as_a_list(celery):
    assert celery("control", *W1, "revoke", "an-id").stdout == (
        "->  w1@h: OK\n        tasks {'an-id'} flagged as revoked\n"
    )
    (reply,) = json.loads(celery("control", *W1, "-j", "revoke", "an-id").stdout)
    assert reply["w1@h"]["ok"]


def test_an_error_of_a_worker_is_shown_and_is_no_failure(celery):
    ended = celery("control", *W1, "fail")
    assert ended.exit_code == 0
    assert "->  w1@h: ERROR\n        LookupError('on purpose')" in ended.stdout


def test_silence_ends_with_status_69(celery):
    ended = celery("inspect", "-t", "0.2", "-d", "nobody@h", "ping")
    assert (ended.exit_code, ended.stderr) == (69, "Error: No nodes replied within time constraint\n")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["inspect", "nosuch"], "Command nosuch not recognized. Available inspect commands: active, "),
        (["inspect", "revoke"], "Command revoke not recognized."),
        (["control", "ping"], "Command ping not recognized. Available control commands: "),
        (["control", "hidden"], "Command hidden not recognized."),
        (["inspect", "ping", "now"], "Command ping takes no arguments"),
        (["inspect", "repeat", "twice"], "'twice' does not do for factor"),
        (["control", "revoke", "--terminate", "id"], "No such option"),
        (["inspect"], "Missing argument"),
    ],
)
def test_wrong_usage_ends_with_status_2(celery, argv, text):
    ended = celery(*argv)
    assert ended.exit_code == 2
    assert text in ended.stderr


@pytest.mark.parametrize(("kind", "mine", "theirs"), [("inspect", "repeat", "fail"), ("control", "fail", "repeat")])
def test_commands_can_be_listed(celery, kind, mine, theirs):
    ended = celery(kind, "--list")
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"{kind.capitalize()} Commands:\n")
    assert f"\n  {mine}" in ended.stdout
    assert f"\n  {theirs}" not in ended.stdout
    assert "hidden" not in ended.stdout


def test_a_broker_that_cannot_be_reached_ends_with_status_69(invoke):
    ended = invoke("-b", "redis://127.0.0.1:1/0", "inspect", "ping")
    assert ended.exit_code == 69
    assert "Could not connect to the message broker." in ended.stderr
    assert "Reason: " in ended.stderr
