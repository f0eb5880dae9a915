"""Chords: built, frozen and sent (CANVAS-046..063). How they are counted and finished: tests of stores and workers."""

from __future__ import annotations

import json

import pytest

from celery import Celery, chain, chord, group, signals
from celery.backends.memory import MemoryBackend
from celery.backends.memory_chords import MemoryBook
from celery.exceptions import CPendingDeprecationWarning, EncodeError, ImproperlyConfigured
from celery.result import GroupResult


def tags(messages):
    return [(message.task, message.args, message.group_index) for message in messages]


def test_members_bring_the_body_along_and_the_result_is_its(tasks, sent):
    """CANVAS-046, CANVAS-049; wire.md 1.6."""
    result = chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())()
    assert tags(sent) == [("w.add", [1], 0), ("w.add", [2], 1)]
    header = result.parent
    assert isinstance(header, GroupResult)
    assert [message.id for message in sent] == [child.id for child in header.results]
    for message in sent:
        options = message.chord["options"]
        assert (options["task_id"], options["group_id"], message.group) == (result.id, header.id, header.id)


def test_a_header_is_given_in_many_forms(tasks, sent):
    """CANVAS-047."""
    one, two = tasks.add.s(1), tasks.add.s(2)
    for header in ([one, two], iter([one, two]), group(one, two), chain(one, two)):
        sent.clear()
        chord(header, tasks.total.s()).delay()
        assert tags(sent) == [("w.add", [1], 0), ("w.add", [2], 1)]
    sent.clear()
    chord(one)(tasks.total.s())
    assert tags(sent) == [("w.add", [1], 0)]


@pytest.mark.parametrize("header", [list, group, lambda: iter(())], ids=["list", "group", "generator"])
def test_without_a_header_the_body_runs_at_once(tasks, sent, header):
    """CANVAS-048."""
    result = chord(header(), tasks.total.s()).delay()
    assert tags(sent) == [("w.total", [[]], None)]
    assert sent[0].id == result.id


def test_a_chord_without_a_body_says_what_to_do(tasks, sent):
    with pytest.raises(ImproperlyConfigured, match="has no body"):
        chord([tasks.add.s(1)]).delay()
    assert sent == []


def test_what_says_when_is_for_the_header_all_else_for_both(tasks, sent):
    """CANVAS-049."""
    made = chord([tasks.add.s(1)], tasks.total.s()).set(priority=3)
    made.apply_async(queue="slow", countdown=60, headers={"team": "red"})
    (message,) = sent
    assert message.eta
    assert message.queue == "slow"
    options = message.chord["options"]
    assert {name: options[name] for name in ("queue", "priority", "headers")} == {
        "queue": "slow", "priority": 3, "headers": {"team": "red"}
    }  # fmt: skip
    assert not {"countdown", "eta"} & options.keys()


def test_members_that_are_workflows_are_counted_by_what_they_end_in(tasks, sent):
    """CANVAS-039, CANVAS-053: positions in the order in which the header is written."""
    add, total = tasks.add, tasks.total
    inner = chord([add.s(1), add.s(2)], total.s())
    chord([add.s(0), group(add.s(3), add.s(4)), chain(add.s(5), add.s(6)), inner, add.s(9)], total.s()).delay()
    assert tags(sent[:3]) == [("w.add", [0], 0), ("w.add", [3], 1), ("w.add", [4], 2)]
    after = sent[3].chain[0]["options"]
    assert (sent[3].group, after["group_index"], after["chord"]["task"]) == (None, 3, "w.total")
    inner_body = sent[4].chord["options"]
    assert (inner_body["group_index"], inner_body["chord"]["task"]) == (4, "w.total")
    assert inner_body["group_id"] == sent[0].group != sent[4].group
    assert sent[-1].group_index == 5


def test_a_group_at_the_end_of_a_member_counts_each_of_its_own(tasks, sent):
    """CANVAS-053: it keeps the body once, and hands it to its members when they are sent."""
    made = chord([chain(tasks.add.s(1), group(tasks.add.s(2), tasks.add.s(3))), tasks.add.s(4)], tasks.total.s())
    assert made.__length_hint__() == 3
    made.delay()
    waiting = sent[0].chain[0]
    assert json.dumps(waiting).count("w.total") == 1
    assert sent[1].group_index == 2
    sent.clear()
    tasks.add.app.signature(waiting).apply_async((7,))
    assert [(message.args, message.group_index, message.chord["task"]) for message in sent] == [
        ([7, 2], 0, "w.total"), ([7, 3], 1, "w.total")
    ]  # fmt: skip


def test_links_of_a_chord_are_its_bodys(tasks):
    """CANVAS-054."""
    made = chord([tasks.add.s(1)], tasks.total.s())
    made.link(tasks.done.s())
    with pytest.warns(CPendingDeprecationWarning, match="its body only"):
        made.link_error(tasks.failed.s())
    assert made.body.options == {"link": [tasks.done.s()], "link_error": [tasks.failed.s()]}
    assert made.tasks[0].options == {}


def test_members_are_linked_to_error_callbacks_on_request(app, tasks):
    """CANVAS-054, CANVAS-060."""
    app.conf.task_allow_error_cb_on_chord_header = True
    made = chord([tasks.add.s(1), chord([tasks.add.s(2)], tasks.total.s())], tasks.total.s())
    made.link_error(tasks.failed.s())
    first, inner = made.tasks
    assert first.options["link_error"] == inner.tasks[0].options["link_error"] == [tasks.failed.s()]
    assert inner.body.options["link_error"] == [tasks.failed.s()]
    assert made.body.options["link_error"] == [tasks.failed.s()]


def test_links_given_with_the_call_are_the_bodys(tasks, sent):
    """CANVAS-055."""
    chord([tasks.add.s(1)], tasks.total.s()).apply_async(link=tasks.done.s(), link_error=tasks.failed.s())
    options = sent[0].chord["options"]
    assert (options["link"][0]["task"], options["link_error"][0]["task"]) == ("w.done", "w.failed")
    assert sent[0].callbacks is sent[0].errbacks is None


def test_only_the_header_is_made_immutable(tasks):
    """CANVAS-062."""
    made = chord([tasks.add.s(1)], tasks.total.s())
    made.set_immutable(True)
    assert (made.tasks[0].immutable, made.body.immutable) == (True, False)


@pytest.mark.parametrize("backend", [None, "rpc://"])
def test_a_backend_that_cannot_do_chords_says_so_before_anything_is_sent(sent, backend):
    """CANVAS-063."""
    with Celery("other", broker="memory://", backend=backend) as other, pytest.raises(NotImplementedError):
        chord([other.signature("w.add")], other.signature("w.total")).delay()
    assert sent == []


def test_nothing_of_a_chord_is_sent_when_a_part_of_it_cannot_be(tasks):
    for made in (
        chord([tasks.add.s(1), chain(tasks.add.s(1), tasks.add.s(object()))], tasks.total.s()),
        chord([tasks.add.s(1)], tasks.total.s(object())),
        chord([chord([tasks.add.s(1)], tasks.total.s()), tasks.add.s(object())], tasks.total.s()),
    ):
        with pytest.raises(EncodeError):
            made.apply_async(queue="half-a-chord")
    assert tasks.add.app.publisher.run(lambda sender: sender.length("half-a-chord")) == 0


@pytest.mark.parametrize("header", [list, iter], ids=["list", "generator"])
def test_a_chord_begins_to_count_before_its_last_member_can_finish(header):
    """wire.md 4.5, step 1; CANVAS-051. Of a generator the size is known, and written, when the last one was drawn."""
    events = []

    class Book(MemoryBook):
        def begin(self, starts):
            events.extend(start.size for start in starts)
            super().begin(starts)

    class Backend(MemoryBackend):
        @property
        def chords(self):
            return Book(self)

    def published(**_):
        events.append("sent")

    signals.after_task_publish.connect(published)
    with Celery("counting", broker="memory://", backend=Backend) as app:
        members = [app.signature("w.add", (number,)) for number in range(30)]
        chord(header([*members, group(members[:2])]), app.signature("w.total")).delay()
    signals.after_task_publish.disconnect(published)
    assert events.count("sent") == 32
    assert [event for event in events if event != "sent"] == [32]
    assert events[-1] == "sent"
    assert events[0] == (32 if header is list else "sent")


def test_a_frozen_chord_is_sent_with_its_ids(tasks, sent):
    """CANVAS-067."""
    made = chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())
    promised = made.freeze()
    assert made.delay() == promised
    assert made.id == promised.parent.id, "a worker of 5.7 takes it for the header's when the chord is in a chain"
    assert [message.id for message in sent] == [child.id for child in promised.parent.results]


def test_each_call_of_a_chord_has_new_ids(tasks, sent):
    """CANVAS-005."""
    made = chord([tasks.add.s(1)], tasks.total.s())
    assert made.delay() != made.delay()
    assert made.tasks[0].options == made.body.options == {}


def test_a_body_carries_no_copy_of_itself(tasks, sent):
    """CANVAS-080: chords in chords in chords grow with what is in them."""
    made = tasks.total.s()
    sizes = []
    for _ in range(6):
        made = chord([tasks.add.s(1), tasks.add.s(2)], made)
        sent.clear()
        made.delay()
        sizes.append(len(json.dumps(sent[0].chord)))
    steps = [after - before for before, after in zip(sizes, sizes[1:], strict=False)]
    assert max(steps) < 1.3 * min(steps)


def test_options_of_a_group_that_becomes_a_header_are_kept(tasks, sent):
    """Lost in 5.7."""
    (group(tasks.add.s(1), tasks.add.s(2)).set(queue="slow") | tasks.total.s()).delay()
    assert [message.queue for message in sent] == ["slow", "slow"]
    assert "queue" not in sent[0].chord["options"]
