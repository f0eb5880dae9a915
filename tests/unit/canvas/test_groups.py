"""Groups: built, frozen and sent (CANVAS-036..045)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery import chain, chord, group
from celery.exceptions import EncodeError
from celery.result import GroupResult


def test_members_are_given_in_many_forms(tasks):
    """CANVAS-036."""
    one, two = tasks.add.s(1), tasks.add.s(2)
    both = [one, two]
    for made in (group(one, two), group(both), group(iter(both)), group(group(one, two))):
        assert list(made.tasks) == both
    assert list(group(one).tasks) == [one]


def test_members_have_the_group_and_their_position(tasks, sent):
    """CANVAS-037, CANVAS-044."""
    result = group(tasks.add.s(i) for i in range(3)).apply_async(queue="slow")
    assert [(message.group, message.group_index, message.queue) for message in sent] == [
        (result.id, position, "slow") for position in range(3)
    ]
    assert [message.id for message in sent] == [child.id for child in result.results]
    assert len(group(tasks.add.s(1), tasks.add.s(2))) == 2


def test_an_empty_group_has_a_result_with_an_id(app, sent):
    """CANVAS-037."""
    result = group(app=app).delay()
    assert isinstance(result, GroupResult)
    assert result
    assert (result.results, sent) == ([], [])


def test_arguments_come_first_in_members_that_take_any(tasks, sent):
    """CANVAS-038; members that are workflows pass them to what runs first."""
    group(tasks.add.s(1), tasks.add.si(2), chain(tasks.add.s(3), tasks.add.s(4))).apply_async((9,), {"y": 1})
    assert [(message.args, message.kwargs) for message in sent] == [
        ([9, 1], {"y": 1}), ([2], {}), ([9, 3], {"y": 1})
    ]  # fmt: skip


def test_groups_in_groups_keep_the_order_and_positions_are_unique(tasks, sent):
    """CANVAS-039."""
    inner = group(tasks.add.s(2), group(tasks.add.s(3), tasks.add.s(4)))
    result = group(tasks.add.s(1), inner, tasks.add.s(5)).delay()
    assert [(message.args, message.group_index) for message in sent] == [([i + 1], i) for i in range(5)]
    assert {message.group for message in sent} == {result.id}
    assert len(result.results) == 5


def test_options_of_a_group_in_a_group_are_its_members(tasks, sent):
    group(tasks.add.s(1), group(tasks.add.s(2)).set(queue="slow")).delay()
    assert [message.queue for message in sent] == ["celery", "slow"]


def test_a_member_that_ends_in_a_group_has_a_result_of_its_own(tasks, sent):
    """CANVAS-040; its members have positions of their own among those of the outer group."""
    inner = chain(tasks.add.s(1), group(tasks.add.s(2), tasks.add.s(3)))
    result = group(inner, tasks.add.s(4)).delay()
    assert [len(getattr(child, "results", ())) for child in result.results] == [2, 0]
    last = sent[0].chain[0]["kwargs"]["tasks"]
    assert [member["options"]["group_index"] for member in last] == [0, 1]
    assert {member["options"]["group_id"] for member in last} == {result.id}
    assert sent[1].group_index == 2
    assert len(group(inner).delay().results) == 2


def test_empty_chains_are_no_members(tasks, sent):
    """CANVAS-041."""
    assert len(group(tasks.add.s(1), chain(), group()).delay().results) == 1


@pytest.mark.parametrize(("option", "text"), [("link", "use a chord"), ("link_error", "individual tasks")])
def test_a_group_cannot_be_linked_when_it_is_called(tasks, option, text):
    """CANVAS-042."""
    with pytest.raises(TypeError, match=text):
        group(tasks.add.s(1)).apply_async(**{option: tasks.done.s()})


def test_links_of_a_group(tasks):
    """CANVAS-043: the callback is the first member's, an error callback everyone's."""
    made = group(tasks.add.s(1), tasks.add.s(2))
    made.link(tasks.done.s())
    errbacks = made.link_error(tasks.failed.s())
    assert errbacks == (tasks.failed.s(), tasks.failed.s())
    assert made.tasks[0].options == {"link": [tasks.done.s().set(immutable=True)], "link_error": [tasks.failed.s()]}
    assert made.tasks[1].options == {"link_error": [tasks.failed.s()]}


def test_members_can_be_fixed_and_skewed(tasks):
    """CANVAS-044."""
    made = group(tasks.add.s(i) for i in range(4)).skew(start=2, stop=4)
    made.set_immutable(True)
    assert [member.options["countdown"] for member in made.tasks] == [2, 3, 2, 3]
    assert all(member.immutable for member in made.tasks)


def test_a_frozen_group_is_sent_with_its_ids(tasks, sent):
    """CANVAS-067."""
    made = group(tasks.add.s(1), chord([tasks.add.s(2)], tasks.total.s()))
    promised = made.freeze()
    assert made.delay() == promised
    assert sent[0].id == promised.results[0].id


def test_a_generator_is_drawn_while_members_leave(tasks, sent):
    """CANVAS-036: the first members leave before the last ones are drawn."""
    left = []

    def members():
        for number in range(100):
            left.append(len(sent))
            yield tasks.add.s(number)

    group(members()).delay()
    assert len(sent) == 100
    assert left[-1] >= 20


def test_a_generator_gives_its_members_once(tasks, sent):
    made = group(tasks.add.s(i) for i in range(3))
    made.delay()
    with pytest.raises(RuntimeError, match="of a list"):
        made.delay()
    kept = group(tasks.add.s(i) for i in range(3))
    assert len(kept) == 3
    kept.delay()
    kept.delay()


def test_in_a_thread_a_generator_is_sent_by_the_application_of_its_first_task(tasks, sent):
    """Threads have no current application: those of a generator went to the default one, and were never run."""
    made = group(tasks.add.s(i) for i in range(3))
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: made.app).result(timeout=10) is tasks.add.app
        thread.submit(made.delay).result(timeout=10)
    assert [message.args for message in sent] == [[0], [1], [2]]


def test_one_signature_may_be_given_many_times(tasks, sent):
    again = tasks.add.s(1)
    group(again for _ in range(3)).delay()
    assert len({message.id for message in sent}) == 3
    assert again.options == {}


def test_of_a_list_nothing_is_sent_when_a_member_cannot_be(tasks):
    """The broker has none of them; of a generator, those that were drawn before."""
    members = [*(tasks.add.s(i) for i in range(50)), chain(tasks.add.s(1), tasks.add.s(object()))]
    for made, there in ((group(members), 0), (group(iter(members)), 50)):
        queue = f"half-sent-{there}"
        with pytest.raises(EncodeError):
            made.apply_async(queue=queue)
        assert tasks.add.app.publisher.run(lambda sender, queue=queue: sender.length(queue)) == there


def test_inside_a_task_a_group_is_one_of_its_children(app, tasks, run):
    """CANVAS-045, CANVAS-066, CANVAS-068."""
    sent = []

    @app.task(name="w.sending")
    def sending():
        sent.append(group(tasks.add.s(1), tasks.add.s(2)).delay())
        sent.append(chord([tasks.add.s(1)], tasks.total.s()).delay())
        sent.append(chain(tasks.add.s(1), tasks.add.s(2)).delay())

    (write,) = run(sending).writes
    children = json.loads(write.payload)["children"]
    assert children[:2] == json.loads(json.dumps([result.as_tuple() for result in sent[:2]]))
    assert children[2][0][0] == sent[2].parent.id
    assert len(children) == 3


def test_a_member_that_is_no_signature_is_named(tasks):
    with pytest.raises(TypeError, match="not int: 7"):
        group(tasks.add.s(1), 7)
    with pytest.raises(TypeError, match=r"w\.add of .*its s\(\)"):
        group(tasks.add)
    with pytest.raises(ValueError, match="without members"):
        group().link(tasks.done.s())


def test_results_of_members_that_are_ignored_say_so(app, sent):
    @app.task(ignore_result=True)
    def quiet():
        pass

    assert group(quiet.s(), quiet.s()).delay().get(timeout=1) == [None, None]
    assert chain(quiet.s(), quiet.s()).delay().get(timeout=1) is None


def test_a_group_that_5_7_sent_on_its_way_is_sent(app, sent):
    """It says of a chord's body that it is no child."""
    waiting = {
        "task": "celery.group", "args": [], "subtask_type": "group", "immutable": False,
        "kwargs": {"tasks": [{"task": "w.add", "args": [1], "kwargs": {}, "options": {"task_id": "a"}}]},
        "options": {"task_id": "g", "group_id": "outer", "group_index": 2, "add_to_parent": False, "root_id": None},
    }  # fmt: skip
    app.signature(waiting).apply_async(([],), root_id="root")
    assert [(message.id, message.group, message.group_index, message.root_id) for message in sent] == [
        ("a", "outer", 2, "root")
    ]
