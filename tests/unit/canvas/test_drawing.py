"""Workflows as pictures: nodes, arrows, states."""

from __future__ import annotations

import pytest

from celery import Celery, chain, chord, group
from celery.canvas.drawing import of_result, of_signature


@pytest.fixture
def app():
    with Celery("drawn", broker="memory://drawn", backend="cache+memory://drawn", set_as_current=False) as app:
        app.task(name="a", shared=False)(lambda *given: given)
        app.task(name="boom", shared=False)(lambda: 1 / 0)
        yield app


def s(app, *labels):
    made = [app.signature(label) for label in labels]
    return made if len(made) > 1 else made[0]


def arrows(drawing):
    names = [node.label if node else "." for node in drawing.nodes]
    return sorted(f"{names[start]}>{names[end]}" for start, end in drawing.arrows)


def test_steps_of_a_chain_follow_each_other(app):
    assert arrows(of_signature(chain(*s(app, "x", "y", "z")))) == ["x>y", "y>z"]


def test_members_of_a_group_are_beside_each_other(app):
    drawing = of_signature(group(s(app, "x", "y")))
    assert not drawing.arrows
    assert [node.label for node in drawing.nodes] == ["x", "y"]


def test_the_body_of_a_chord_follows_every_member(app):
    assert arrows(of_signature(chord(s(app, "x", "y"), s(app, "body")))) == ["x>body", "y>body"]


def test_many_that_follow_many_meet_in_a_joint(app):
    drawing = of_signature(chord(s(app, "x", "y"), group(s(app, "u", "v"))))
    assert arrows(drawing) == [".>u", ".>v", "x>.", "y>."]


def test_the_dict_form_is_drawn_as_the_workflow(app):
    workflow = chain(s(app, "x"), group(s(app, "y", "z")))
    assert of_signature(dict(workflow)).mermaid() == of_signature(workflow).mermaid()


def test_a_mapped_task_is_shown_with_the_task_that_it_maps(app):
    (node,) = of_signature(app.tasks["a"].map([1, 2])).nodes
    assert node.label == "celery.map of a"


def test_mermaid_has_a_line_for_each_node_and_arrow(app):
    assert of_signature(chain(*s(app, "x", "y"))).mermaid() == 'flowchart LR\n  n0["x"]\n  n1["y"]\n  n0 --> n1'


def test_dot_takes_any_name(app):
    dot = of_signature(app.signature('odd "name" \\ here')).dot()
    assert '[label="odd \\"name\\" \\\\ here"]' in dot


def test_results_show_how_far_a_workflow_is(app):
    app.backend.store_result("first", 1, "SUCCESS")
    parent = app.AsyncResult("first")
    members = [app.AsyncResult("m0"), app.AsyncResult("m1")]
    last = app.AsyncResult("last", parent=app.GroupResult("g", members, parent=parent))
    drawing = of_result(last)
    assert {node.label: node.state for node in drawing.nodes} == {
        "first": "SUCCESS", "m0": "PENDING", "m1": "PENDING", "last": "PENDING",
    }  # fmt: skip
    assert arrows(drawing) == ["first>m0", "first>m1", "m0>last", "m1>last"]
    assert "fillcolor" in drawing.dot().partition('label="first')[2].partition("\n")[0]
