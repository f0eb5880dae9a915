"""``celery graph``: workflows as pictures."""

from __future__ import annotations

import shutil

import pytest

PROJECT = """
from celery import chain, signature
w = chain(signature("proj.add", (1, 1)), signature("proj.add", (2,)))
def made():
    return w
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
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(invoke, path, complaint):
    ended = invoke("graph", "workflow", path)
    assert ended.exit_code == 2
    assert complaint in ended.output


def test_a_result_is_drawn_with_its_state(invoke, app):
    app.backend.store_result("an-id", 3, "SUCCESS")
    assert 'n0["an-id<br>SUCCESS' in invoke("graph", "result", "an-id", "--format", "mermaid").output


def test_pictures_need_graphviz(invoke, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("dot") is None
    ended = invoke("graph", "workflow", "drawn_flows:w", "--format", "svg")
    assert ended.exit_code == 2
    assert "needs the program dot of Graphviz" in ended.output
