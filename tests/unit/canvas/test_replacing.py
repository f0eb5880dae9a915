"""Replacements, and members that join a running chord (CANVAS-070..073)."""

from __future__ import annotations

import json

import pytest

from celery import chain, group, states
from celery.exceptions import ImproperlyConfigured


@pytest.fixture
def replaced(app):
    """A task that is replaced by what `by` makes."""

    def replaced_by(by):
        @app.task(bind=True, name="w.replaced")
        def replaced(self, *args):
            raise self.replace(by(*args))

        return replaced

    return replaced_by


def message_of(publish):
    args, kwargs, embed = json.loads(publish.envelope.body)
    return publish.envelope.headers, args, embed


def test_a_replacement_has_the_id_and_the_place_of_the_task(tasks, run, replaced):
    """CANVAS-070, CANVAS-071; wire.md 1.6."""
    task = replaced(lambda number: tasks.add.s(number, 1))
    outcome = run(task, 5, group_id="g", group_index=3, chord=tasks.total.s(), root_id="root")
    assert outcome.state == states.IGNORED
    assert outcome.writes == outcome.parts == ()
    ((headers, args, embed),) = map(message_of, outcome.follow)
    assert (headers["id"], headers["root_id"], headers["parent_id"]) == ("the-id", "root", "the-id")
    assert (headers["group"], headers["group_index"], embed["chord"]["task"]) == ("g", 3, "w.total")
    assert headers["replaced_task_nesting"] == 1
    assert args == [5, 1]


def test_what_follows_the_task_follows_the_replacement(tasks, run, replaced):
    """CANVAS-070: links are the last step's own, before what the chain goes on with."""
    task = replaced(lambda number: chain(tasks.add.s(number), tasks.add.s(1)))
    rest = tasks.add.s(100)
    rest.freeze("rest-id")
    outcome = run(task, 5, chain=[rest], callbacks=[tasks.done.s()], errbacks=[tasks.failed.s()])
    ((headers, _, embed),) = map(message_of, outcome.follow)
    last, own = embed["chain"]
    assert headers["id"] != "the-id"
    assert (own["options"]["task_id"], last["options"]["task_id"]) == ("the-id", "rest-id")
    assert [link["task"] for link in own["options"]["link"]] == ["w.done"]
    assert [link["task"] for link in embed["errbacks"]] == ["w.failed"]
    assert "link" not in last["options"]


def test_a_group_stands_for_the_list_of_its_values(tasks, run, replaced):
    """CANVAS-070."""
    task = replaced(lambda number: chain(tasks.add.s(number), group(tasks.add.s(1), tasks.add.s(2))))
    ((_, _, embed),) = map(message_of, run(task, 5, root_id="root").follow)
    body = embed["chain"][0]["kwargs"]["body"]
    assert (body["task"], body["kwargs"], body["options"]["task_id"]) == ("celery.accumulate", {"index": 0}, "the-id")


def test_stamps_of_the_task_are_the_replacements(tasks, run, replaced):
    """CANVAS-081; its own ones win."""
    task = replaced(lambda number: tasks.add.s(number).stamp(own="new"))
    outcome = run(task, 5, stamped_headers=["team", "own"], team="red", own="old")
    ((headers, _, _),) = map(message_of, outcome.follow)
    assert headers["stamps"] == {"team": "red", "own": "new"}


@pytest.mark.parametrize("by", [lambda add: chain(), lambda add: add.s(1).set(chord={"task": "w.total"})])
def test_some_things_cannot_replace_a_task(tasks, run, replaced, by):
    """CANVAS-071."""
    outcome = run(replaced(lambda: by(tasks.add)))
    assert outcome.state == states.FAILURE
    assert ImproperlyConfigured.__name__ in outcome.summary


def test_a_hook_may_see_the_replacement(app, tasks, run):
    """CANVAS-072."""
    seen = []

    @app.task(bind=True, name="w.hooked", base=hooked(app, seen))
    def task(self):
        self.replace(tasks.add.s(1))

    assert run(task).state == states.IGNORED
    assert [sig.task for sig in seen] == ["w.add"]


def hooked(app, seen):
    class Hooked(app.Task):
        def on_replace(self, sig):
            seen.append(sig)
            return super().on_replace(sig)

    return Hooked


def test_only_a_member_of_a_chord_can_add_to_it(app, tasks, run):
    """CANVAS-073."""

    @app.task(bind=True, name="w.adding")
    def adding(self):
        self.add_to_chord(tasks.add.s(1))

    outcome = run(adding)
    assert outcome.state == states.FAILURE
    assert "not a member of any chord" in outcome.summary
