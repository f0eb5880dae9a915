"""Large workflows stay closed until somebody looks inside, and go on as they came."""

from __future__ import annotations

import copy
import json
import pickle

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery.wire.closed import ClosedSignature, Steps, read_body
from celery.wire.protocol import CallOptions, Packing, Template, next_step, read_task
from celery.wire.serializers import resolve_accept

STEP = {"task": "t.add", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
ACCEPT = resolve_accept(["json"])


def steps(count):
    return [{**STEP, "args": [number]} for number in range(count)]


def closed(items):
    return Steps(msgspec.Raw(json.dumps(item).encode()) for item in items)


def message(serializer="json", **options):
    template = Template("t.add", Packing(serializer=serializer), CallOptions(**options))
    return template.fill("an-id", (1,), {}, reply_to="r")


def test_steps_are_a_list_of_mappings_to_everybody_else():
    row = closed(steps(3))
    assert row == steps(3)
    assert row[-1] == steps(3)[-1]
    assert list(reversed(row)) == steps(3)[::-1]
    assert row[:-1] == steps(2)
    assert isinstance(row[:-1], Steps)
    row.append({"task": "more"})
    assert row.pop()["task"] == "more"
    assert pickle.loads(pickle.dumps(row)) == steps(3)
    assert copy.deepcopy(row) == steps(3)
    assert row != None  # noqa: E711 - how a missing chain compares


def test_a_body_that_is_not_just_arguments_and_embed_is_left_to_others():
    assert read_body(b'[{"not": "a list"}, {}, {}]') is None
    assert read_body(b"[[], {}") is None
    assert read_body(b'{"args": []}') is None


def test_what_there_is_none_of_is_none():
    assert read_body(b'[[], {}, {"chain": [], "chord": null}]') == (
        [], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord")),
    )  # fmt: skip


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_a_chain_that_is_passed_on_closed_is_the_chain_that_came(serializer):
    first = message(chain=steps(50)[::-1], chord=STEP)
    read = read_task(first, ACCEPT, closed=True)
    assert isinstance(read.embed["chain"], Steps)
    assert isinstance(read.embed["chord"], ClosedSignature)
    assert read.embed["chord"] == STEP
    following = next_step(read.embed["chain"])
    assert following is not None
    step, rest = following
    assert step == steps(50)[0]
    second = message(serializer, chain=rest)
    again = read_task(second, resolve_accept([serializer]))
    assert again.embed["chain"] == steps(50)[:0:-1]


def test_texts_of_closed_steps_travel_as_they_came():
    odd = b'{"task":  "t.add", "args": [1.50],"kwargs":{}, "options": {}, "subtask_type": null, "immutable": false}'
    body = message(chain=Steps([msgspec.Raw(odd)])).body
    assert odd in body
    assert json.loads(body)[2]["chain"] == [json.loads(odd)]


#: Names, texts that look like the border between two steps, and calls inside of calls.
ARGUMENT = st.recursive(
    st.sampled_from(['}, {"task": ', '},{"task":', "\\", '"', "}]", 1, None]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.builds(lambda value: {"task": "t", "args": value}, inner),
    max_leaves=6,
)


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" , ", " : ")])
@given(arguments=st.lists(ARGUMENT, max_size=4), first=st.sampled_from(["task", "args"]))
@example(arguments=[1, [{"task": "t", "args": []}, {"task": "t", "args": []}]], first="task")
def test_the_last_step_is_found_whatever_the_steps_are(separators, arguments, first):
    items = [dict(sorted({"task": "t", "args": each}.items(), reverse=first == "task")) for each in arguments]
    text = json.dumps(items, separators=separators).encode()
    assert Steps.read(text) == items
    following = next_step(Steps.read(text))
    if not items:
        assert following is None
        return
    step, rest = following
    assert step == items[-1]
    assert bool(rest) == (len(items) > 1)
    assert json.loads(b"[" + b",".join(rest.texts()) + b"]") == items[:-1]
    assert copy.copy(rest) == items[:-1]
    rest.insert(0, {"task": "more"})
    assert rest == [{"task": "more"}, *items[:-1]]


def test_small_bodies_are_simply_read():
    read = read_task(message(chain=steps(2)), ACCEPT, closed=True)
    assert type(read.embed["chain"]) is list
