"""``celery graph``: workflows as pictures."""

from __future__ import annotations

import shutil

import pytest

from celery import Celery

PROJECT = """
from celery import chain, signature
w = chain(signature("proj.add", (1, 1)), signature("proj.add", (2,)))
def made():
    return w
def asks(day):
    return w
class task:
    apply_async = None
number = 3
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "drawn_flows.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["w", "made"])
def test_a_signature_or_what_makes_one_is_drawn(invoke, name):
    shown = invoke("graph", "workflow", f"drawn_flows:{name}", "--format", "mermaid")
    assert shown.output == 'flowchart LR\n  n0["proj.add"]\n  n1["proj.add"]\n  n0 --> n1\n'
    assert invoke("graph", "workflow", f"drawn_flows:{name}").output.startswith("digraph workflow {")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("drawn_flows:nothing", "cannot be imported"),
        ("no_such_module:w", "cannot be imported"),
        ("drawn_flows:number", "is no signature but int"),
        ("drawn_flows:task", "is no signature but a task"),
        ("drawn_flows:asks", "is called without arguments, and takes some: missing a required argument: 'day'"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(invoke, path, complaint):
    ended = invoke("graph", "workflow", path)
    assert ended.exit_code == 2
    assert complaint in ended.output


def test_a_result_is_drawn_with_its_state(invoke, app):
    app.backend.store_result("an-id", 3, "SUCCESS")
    assert 'n0["an-id<br>SUCCESS' in invoke("graph", "result", "an-id", "--format", "mermaid").output


def test_of_an_id_that_nothing_is_known_of_the_picture_says_pending_and_a_line_beside_it_why(invoke):
    drawn = invoke("graph", "result", "no-such-id", "--format", "mermaid")
    assert drawn.exit_code == 0
    assert drawn.stdout == 'flowchart LR\n  n0["no-such-id<br>PENDING"]\n'
    assert drawn.stderr.startswith("No result of no-such-id is stored")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "No result backend is configured."),
        (
            {
                "result_backend": "redis://127.0.0.1:1/0",
                "result_backend_transport_options": {"retry_policy": {"max_retries": 0}},
            },
            "Could not connect to the result backend.",
        ),
    ],
    ids=["none", "away"],
)
def test_results_that_cannot_be_read_are_told_in_a_line(invoke, settings, complaint):
    with Celery("proj", broker="memory://", set_as_current=False) as app:
        app.conf.update(settings)
        for command in (("graph", "result", "an-id"), ("result", "an-id")):
            ended = invoke(*command, obj=app)
            assert ended.exit_code == 69
            assert complaint in ended.output


def test_what_graphviz_complains_of_is_told(invoke, monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho 'Format: \"svg\" not recognized' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = invoke("graph", "workflow", "drawn_flows:w", "--format", "svg")
    assert ended.exit_code == 1
    assert 'failed with exit status 3: Format: "svg" not recognized' in ended.output


def test_pictures_need_graphviz(invoke, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("dot") is None
    ended = invoke("graph", "workflow", "drawn_flows:w", "--format", "svg")
    assert ended.exit_code == 2
    assert "needs the program dot of Graphviz" in ended.output
