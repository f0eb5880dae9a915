"""map, starmap and chunks (CANVAS-064, CANVAS-065)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celery import chain, chord, chunks, group, signature, xmap, xstarmap

VECTORS = json.loads((Path(__file__).parents[2] / "data/wire_vectors/signatures.json").read_text())["vectors"]
COMPOSED = [vector for vector in VECTORS if vector["json"]["task"] != "w.add"]


@pytest.mark.parametrize("vector", COMPOSED, ids=lambda vector: vector["python"])
def test_composed_signatures_are_written_as_captured(vector, app, tasks):
    """CANVAS-078; wire.md 1.5."""
    xsum = app.task(name="w.xsum")(lambda values: sum(values))
    names = {"add": tasks.add, "xsum": xsum, "chain": chain, "chord": chord, "group": group}
    made = eval(vector["python"], names)
    assert json.loads(json.dumps(made)) == vector["json"]
    again = signature(vector["json"], app=app)
    assert json.loads(json.dumps(again)) == vector["json"]
    assert type(again) is type(made) or vector["json"]["subtask_type"] is None


def test_one_message_goes_where_the_task_would(app, tasks, sent):
    """CANVAS-064."""
    app.conf.task_routes = {"w.add": {"queue": "sums"}}
    tasks.add.map([1, 2]).delay()
    tasks.add.starmap([[1, 2]]).delay(9)
    assert [(message.task, message.queue, message.kwargs["it"]) for message in sent] == [
        ("celery.map", "sums", [1, 2]), ("celery.starmap", "sums", [[1, 2]])
    ]  # fmt: skip
    assert sent[1].args == []


def test_calls_run_one_after_the_other(tasks):
    assert tasks.add.map(range(3)).apply().get() == [0, 1, 2]
    assert tasks.add.starmap([(1, 2), (3, 4)]).apply().get() == [3, 7]


def test_chunks_are_a_group_of_starmaps(tasks, sent):
    """CANVAS-065."""
    result = tasks.add.chunks([(1,), (2,), (3,)], 2)()
    assert [message.kwargs["it"] for message in sent] == [[[1], [2]], [[3]]]
    assert [child.id for child in result.results] == [message.id for message in sent]
    made = tasks.add.chunks(zip(range(3), strict=True), 2).group()
    assert isinstance(made, group)
    assert [member.options for member in made.skew().tasks] == [{"countdown": 1.0}, {"countdown": 2.0}]


def test_what_follows_chunks_follows_each(tasks, sent):
    """CANVAS-065, as 5.7 does it."""
    (tasks.add.chunks([(1,), (2,), (3,)], 2) | tasks.total.s()).delay()
    assert [[step["task"] for step in message.chain] for message in sent] == [["w.total"], ["w.total"]]


def test_they_survive_cloning(tasks):
    for made in (tasks.add.map([1]), tasks.add.starmap([[1]]), tasks.add.chunks([[1]], 1)):
        again = made.clone()
        assert again == made
        assert type(again) is type(made)
    assert [kind.__module__ for kind in (xmap, xstarmap, chunks)] == ["celery.canvas"] * 3


def test_how_they_are_shown(tasks):
    """CANVAS-079."""
    assert repr(tasks.add.map([1, 2])) == "[w.add(x) for x in [1, 2]]"
    assert repr(tasks.add.starmap([[1, 2]])) == "[w.add(*x) for x in [[1, 2]]]"
