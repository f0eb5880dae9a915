"""What a task may know of its call, and how a call is sent again (API-032, API-044..046)."""

from __future__ import annotations

import pytest

from celery.app.context import Context, custom_headers


def test_what_nobody_set_has_the_value_of_an_empty_call():
    request = Context({"id": "i"}, args=(1,))
    assert (request.id, request.args, request.retries, request.called_directly) == ("i", (1,), 0, True)
    assert (request.get("id"), request.get("nothing", 3)) == ("i", 3)
    assert sorted(request) == ["args", "id"]
    request.clear()
    assert (request.id, list(request)) == (None, [])


def test_requests_do_not_share_their_children():
    first, second = Context(), Context()
    first.children.append("child")
    assert (first.children, second.children) == (["child"], [])
    first.children = None
    assert first.children == []


def test_limits_are_read_from_the_pair_of_the_message():
    request = Context(timelimit=[30, 20])
    assert (request.time_limit, request.soft_time_limit) == (30, 20)
    assert (Context().time_limit, Context(timelimit=None).soft_time_limit) == (None, None)


def test_a_call_is_sent_again_with_its_identity_limits_and_workflow():
    options = Context(
        id="i", root_id="r", parent_id="p", group="g", group_index=2, shadow="s", chord={"c": 1}, chain=["n"],
        callbacks=["cb"], errbacks=["eb"], expires="2044-01-01", timelimit=[30, 20], retries=1, reply_to="q",
        replaced_task_nesting=3, ignore_result=True, delivery_info={"priority": 5},
        stamped_headers=["st"], stamps={"st": "v"},
    ).as_execution_options()  # fmt: skip
    assert {
        "task_id": "i", "root_id": "r", "parent_id": "p", "group_id": "g", "group_index": 2, "shadow": "s",
        "chord": {"c": 1}, "chain": ["n"], "link": ["cb"], "link_error": ["eb"], "expires": "2044-01-01",
        "time_limit": 30, "soft_time_limit": 20, "retries": 1, "reply_to": "q", "replaced_task_nesting": 3,
        "ignore_result": True, "priority": 5, "stamped_headers": ["st"], "st": "v",
    }.items() <= options.items()  # fmt: skip


def test_what_dead_lettering_added_does_not_travel_on():
    headers = {"mine": 1, "x-death": [], "x-first-death-queue": "q", "x-last-death-reason": "r", "x-mine": 2}
    assert Context(headers=headers).as_execution_options()["headers"] == {"mine": 1, "x-mine": 2}
    assert Context(headers={"x-death": []}).as_execution_options()["headers"] is None


def test_what_a_call_does_not_say_is_not_sent_again():
    options = Context(id="i").as_execution_options()
    assert not options.keys() & {"ignore_result", "priority", "stamped_headers"}


@pytest.mark.parametrize(
    ("headers", "own"),
    [({"id": "i", "task": "t", "lang": "py"}, None), ({"id": "i", "mine": 1, "x-delivery-count": 2}, {"mine": 1})],
)
def test_the_callers_own_headers_are_told_apart(headers, own):
    assert custom_headers(headers) == own
