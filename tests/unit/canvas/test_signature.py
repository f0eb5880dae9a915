"""Plain signatures: what they hold, how they merge, freeze, link and travel (API-074..077, CANVAS-001..007)."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import Celery, Signature, maybe_signature, signals, signature
from celery.canvas import subtask
from celery.exceptions import NotRegistered
from celery.wire import serializers

VECTORS = json.loads((Path(__file__).parents[2] / "data/wire_vectors/signatures.json").read_text())["vectors"]
PLAIN = [vector for vector in VECTORS if vector["json"]["task"] == "w.add"]


@pytest.fixture
def app():
    with Celery("w", broker="memory://", task_serializer="json") as made:
        yield made


@pytest.fixture
def add(app):
    @app.task(name="w.add")
    def add(x, y, z=0):
        return x + y + z

    return add


@pytest.fixture
def errback_old(app):
    @app.task(name="w.errback_old")
    def errback_old(task_id):
        return task_id

    return errback_old


@pytest.fixture
def sent():
    """What is published: headers, with the arguments and what follows as `body`."""
    messages = []

    def keep(headers, body, routing_key, **_):
        messages.append({**headers, "body": body, "routing_key": routing_key})

    signals.before_task_publish.connect(keep)
    yield messages
    signals.before_task_publish.disconnect(keep)


# -- as data


@pytest.mark.parametrize("vector", PLAIN, ids=lambda vector: vector["python"])
def test_a_signature_is_written_as_captured(vector, app, add, errback_old):
    names = {"add": add, "errback_old": errback_old}
    made = eval(vector["python"], names)
    assert json.loads(json.dumps(made)) == vector["json"]
    assert json.loads(serializers.dumps(made, "json")[2]) == vector["json"]
    assert list(made) == list(vector["json"])


@pytest.mark.parametrize("vector", PLAIN, ids=lambda vector: vector["python"])
def test_a_captured_signature_is_read_and_written_again(vector, app):
    again = signature(vector["json"], app=app)
    assert isinstance(again, Signature)
    assert json.loads(json.dumps(again)) == vector["json"]


def test_a_dict_form_may_lack_what_says_nothing():
    read = signature({"task": "w.add", "args": [1], "kwargs": {}})
    assert (read.options, read.subtask_type, read.immutable) == ({}, None, False)


def test_a_signature_can_be_made_of_a_task_a_name_or_a_signature(app, add):
    by_task = signature(add, (1,), {"y": 2}, {"queue": "q"}, app=app)
    by_name = signature("w.add", args=(1,), kwargs={"y": 2}, app=app, queue="q")
    assert by_task == by_name == subtask(by_task)
    assert signature(by_task) is not by_task
    assert by_task.type == by_name.type
    assert (by_task.task, by_task.name, by_task.args, by_task.kwargs) == ("w.add", "w.add", (1,), {"y": 2})


def test_what_may_be_a_signature_stays_what_it_is_when_it_is_none(app, add):
    assert maybe_signature(None) is None
    made = add.s(1)
    assert maybe_signature(made) is made
    assert maybe_signature(made, clone=True) is not made
    assert maybe_signature(dict(made), app=app).type is made.type


def test_an_unknown_kind_of_signature_is_named():
    with pytest.raises(ValueError, match=r"'tree'.*register_type"):
        signature({"task": "t", "args": [], "kwargs": {}, "subtask_type": "tree"})


def test_kinds_of_signatures_can_be_registered(app):
    @Signature.register_type()
    class wave(Signature):
        @classmethod
        def from_dict(cls, d, app=None):
            return cls(d, app=app)

    try:
        read = signature({"task": "t", "args": [], "kwargs": {}, "subtask_type": "wave"}, app=app)
        assert isinstance(read, wave)
        assert isinstance(read.clone(), wave)
    finally:
        del Signature.TYPES["wave"]


def test_signatures_survive_copy_and_pickle(add):
    made = add.s(1, z=2).set(queue="q")
    made.link(add.s(3))
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), made.clone()):
        assert again == made
        assert isinstance(again, Signature)
        again.options["link"].append(1)
        again.kwargs["z"] = 9
        assert len(made.options["link"]) == 1
        assert made.kwargs == {"z": 2}
    # Workers of 5.7 have no module of this name.
    assert b"celery.canvas.signature" not in pickle.dumps(made)


def test_a_signature_is_shown_as_a_call(add):
    assert repr(add.s(1, "a", z=2)) == "w.add(1, 'a', z=2)"
    assert add.s(1).reprcall(4) == "w.add(4, 1)"
    assert repr(signature("any")) == "any()"


# -- merging


def test_partial_arguments_come_first_and_keywords_override(app, add):
    assert add.s("b", z="c")("a") == "abc"
    assert add.s("b", z="c")("a", z="d") == "abd"
    assert add.s(1).clone((2,), {"z": 3}) == add.s(2, 1, z=3)
    assert add.s(1).partial(args=(2,)) == add.s(2, 1)
    assert add.s(2).apply((1,), {"z": 4}).get() == 7


def test_an_immutable_signature_takes_options_only(add):
    fixed = add.si(1, 2)
    assert fixed(5, z=5) == 3
    assert fixed.clone((5,), {"z": 5}, queue="q") == add.si(1, 2).set(queue="q")
    assert add.s(1, 2).set(immutable=True) == fixed


def test_options_override_but_group_and_stamps_stay(add):
    options = add.s(1).set(group_id="g", queue="a", stamped_headers=["team"], team="red").clone(
        group_id="h", queue="b", stamped_headers=["other"], team="blue", other=1
    ).options  # fmt: skip
    assert options == {
        "group_id": "g", "queue": "b", "stamped_headers": ["team"], "team": "red", "other": 1
    }  # fmt: skip
    assert add.s(1).clone(group_id="h").options == {"group_id": "h"}


def test_replace_keeps_what_is_not_given(add):
    made = add.s(1, z=2).set(queue="q")
    assert made.replace(args=(3,)) == add.s(3, z=2).set(queue="q")
    assert made.replace(kwargs={}, options={}) == add.s(1)
    assert made == add.s(1, z=2).set(queue="q")


@given(own=st.lists(st.integers(), max_size=3), given_=st.lists(st.integers(), max_size=3), immutable=st.booleans())
def test_merging_is_prepending(own, given_, immutable):
    made = signature("any", args=own, immutable=immutable)
    assert list(made.clone(given_).args) == (own if immutable else given_ + own)


# -- sending


def test_calling_sends_the_merged_call(add, sent):
    result = add.s(2).set(queue="slow", priority=3).apply_async((1,), {"z": 3}, shadow="plus")
    (message,) = sent
    assert message["id"] == result.id
    assert message["body"][:2] == ([1, 2], {"z": 3})
    assert (message["routing_key"], message["shadow"], message["task"]) == ("slow", "plus", "w.add")


def test_options_that_are_none_count_for_nothing(add, sent):
    add.s(1, 2).set(queue="slow").apply_async(queue=None, countdown=None)
    assert sent[0]["routing_key"] == "slow"
    assert sent[0]["eta"] is None


def test_coroutines_send_signatures_too(app, add, sent):
    async def scenario():
        return [await add.s(2).adelay(1), await app.signature("elsewhere").aapply_async((1,))]

    results = asyncio.run(scenario())
    assert [(message["id"], message["task"]) for message in sent] == [
        (results[0].id, "w.add"), (results[1].id, "elsewhere")
    ]  # fmt: skip


def test_a_task_need_not_be_registered_to_be_sent(app, sent):
    result = app.signature("elsewhere.task", args=(1,)).delay(0)
    assert (sent[0]["task"], sent[0]["body"][0]) == ("elsewhere.task", [0, 1])
    assert result.id == sent[0]["id"]
    with pytest.raises(NotRegistered):
        app.signature("elsewhere.task")()


def test_each_call_has_a_new_id_unless_frozen(add, sent):
    loose, frozen = add.s(1, 2), add.s(1, 2)
    assert loose.delay().id != loose.delay().id
    promised = frozen.freeze()
    assert frozen.delay() == frozen.delay() == promised == frozen.id


def test_freezing_fixes_the_place_in_a_workflow(app, add):
    made = add.s(1)
    made.freeze("an-id", group_id="g", root_id="r", parent_id="p", group_index=0)
    assert (made.id, made.root_id, made.parent_id) == ("an-id", "r", "p")
    assert made.options["group_id"] == "g"
    assert made.options["group_index"] == 0
    assert made.options["reply_to"] == app.thread_oid
    assert made.freeze("another", group_id="other").id == "an-id"
    assert made.options["group_id"] == "g"


# -- links


def test_links_are_added_once(add):
    made, callback, errback = add.s(1, 1), add.s(5), add.s(6)
    assert made.link(callback) is callback
    made.link(add.s(5))
    assert made.link_error(errback) is errback
    assert made.on_error(add.s(6)) is made
    assert made.options == {"link": [callback], "link_error": [errback]}
    assert made.flatten_links() == [made, callback]


def test_links_travel_with_the_call(add, errback_old, sent):
    made = add.s(1, 1).on_error(errback_old.s())
    made.link(add.s(5))
    made.delay()
    embedded = sent[0]["body"][2]
    assert [link["args"] for link in embedded["callbacks"]] == [[5]]
    assert [link["task"] for link in embedded["errbacks"]] == ["w.errback_old"]


def test_list_options_can_be_extended(add):
    made = add.s(1)
    made.extend_list_option("link", add.s(2))
    made.extend_list_option("link", [add.s(3)])
    assert made.options["link"] == [add.s(2), add.s(3)]


def test_a_link_is_applied_after_success(add):
    seen = []

    @add.app.task
    def keep(value):
        seen.append(value)

    made = add.s(1, 2)
    made.link(keep.s())
    made.apply()
    assert seen == [3]


# -- stamps


def test_stamps_are_headers_of_the_message(add, sent):
    made = add.s(1, 1)
    made.link(add.s(2))
    assert made.stamp(team="red") is made
    made.delay()
    assert sent[0]["stamps"] == {"team": "red"}
    assert sent[0]["stamped_headers"] == ["team"]
    assert sent[0]["body"][2]["callbacks"][0]["options"] == {"team": "red", "stamped_headers": ["team"]}


def test_stamps_can_be_collected(add):
    made = add.s(1).stamp(team="red").stamp(append_stamps=True, team="blue")
    assert made.options["team"] == ["blue", "red"]
