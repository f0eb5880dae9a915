"""`Celery.send_many`: what a list of calls becomes, and what is told of those that fail (ours; API-012, API-026)."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc

import pytest
import redis

from celery import Celery, exceptions, signals
from celery.app.bulk import FIRST_BATCH, send_in_batches
from celery.brokers.topology import Queue


@pytest.fixture
def app(redis_url):
    with Celery("w", broker=redis_url, set_as_current=False) as app:
        app.add = app.task(name="w.add", shared=False, lazy=False)(lambda x, y=0: x + y)
        app.quiet = app.task(name="w.quiet", shared=False, lazy=False, ignore_result=True)(lambda: None)
        yield app


def waiting(app, queue="celery"):
    """The messages of a queue, the first one sent first, as (task, id, args, headers, properties)."""
    with redis.Redis.from_url(app.conf.broker_url) as client:
        texts = [json.loads(text) for text in reversed(client.lrange(queue, 0, -1))]
    bodies = [json.loads(base64.b64decode(text["body"])) for text in texts]
    return [
        (text["headers"]["task"], text["headers"]["id"], body[0], text["headers"], text["properties"])
        for text, body in zip(texts, bodies, strict=True)
    ]


def essence(message):
    """A message without what differs from call to call."""
    _, task_id, args, headers, properties = message
    headers = {name: "id" if value == task_id else value for name, value in headers.items()}
    properties = {name: "id" if value == task_id else value for name, value in properties.items()}
    return args, headers, {**properties, "delivery_tag": None}


def test_calls_are_sent_in_order_and_their_results_are_returned_in_order(app):
    results = app.send_many(app.add.s(number) for number in range(1200))
    messages = waiting(app)
    assert [message[2] for message in messages] == [[number] for number in range(1200)]
    assert [message[1] for message in messages] == [result.id for result in results]
    assert len(set(results)) == 1200


def test_a_coroutine_sends_many_of_an_asynchronous_generator_too(app):
    async def calls():
        for number in range(30):
            await asyncio.sleep(0)
            yield app.add.s(number)

    async def main():
        return await app.asend_many(calls()), await app.asend_many([app.add.s(30)])

    first, second = asyncio.run(main())
    assert [message[1] for message in waiting(app)] == [result.id for result in first + second]


OPTIONS = [
    {},
    {"queue": "other"},
    {"priority": 6, "headers": {"mine": 1}, "ignore_result": True},
    {"link": {"task": "w.add", "args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}},
    {"group_id": "g", "group_index": 3, "root_id": "r", "parent_id": "p", "reply_to": "q"},
    {"serializer": "json", "compression": "zlib", "time_limit": 9, "soft_time_limit": 3, "app_id": "me"},
    {"eta": "2030-01-01T00:00:00+00:00", "shadow": "s", "argsrepr": "(...)", "retries": 2},
    {"stamped_headers": ["mark"], "mark": "m"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["w.add", "elsewhere.run"])
def test_a_call_among_many_is_the_same_message_as_alone(app, name, options):
    """API-026. The second of two like calls shares what was worked out for the first, be its task known here or not."""
    queue = options.get("queue", "celery")

    def call(**options):
        return app.signature(name, (1,), {"y": 2}, **options)

    call().apply_async(**options)
    app.send_many([call(**options), call(**options)])
    app.send_many([call()], **options)
    with redis.Redis.from_url(app.conf.broker_url) as client:
        names = [queue, f"{queue}\x06\x166"]
        texts = [json.loads(text) for name in names for text in reversed(client.lrange(name, 0, -1))]
    parts = ((None, text["headers"]["id"], text["body"], text["headers"], text["properties"]) for text in texts)
    alone, *others = map(essence, parts)
    assert others == [alone] * 3


def test_neighbours_that_are_equal_and_not_the_same_keep_what_they_have(app):
    """1 and True are equal, and two things on the wire."""
    callbacks = [app.add.s(1), app.add.s(True)]
    app.send_many(app.quiet.s().set(link=callback) for callback in callbacks)
    with redis.Redis.from_url(app.conf.broker_url) as client:
        bodies = [json.loads(base64.b64decode(json.loads(text)["body"])) for text in client.lrange("celery", 0, -1)]
    found = [body[2]["callbacks"][0]["args"][0] for body in reversed(bodies)]
    assert list(map(repr, found)) == ["1", "True"]


def test_a_callback_that_is_changed_between_two_calls_is_sent_as_it_was_for_each(app):
    callback = app.add.s()

    def calls():
        for number in range(3):
            callback.args = (number,)
            yield app.quiet.s().set(link=callback)

    app.send_many(calls())
    with redis.Redis.from_url(app.conf.broker_url) as client:
        bodies = [json.loads(base64.b64decode(json.loads(text)["body"])) for text in client.lrange("celery", 0, -1)]
    assert [body[2]["callbacks"][0]["args"] for body in reversed(bodies)] == [[0], [1], [2]]


def test_signatures_that_are_frozen_keep_their_ids(app):
    calls = [app.add.s(number) for number in range(3)]
    frozen = [call.freeze() for call in calls]
    assert app.send_many(calls) == frozen
    assert [message[1] for message in waiting(app)] == [result.id for result in frozen]


def test_dict_forms_and_names_that_are_not_registered_are_sent(app):
    app.send_many([dict(app.add.s(1)), app.signature("elsewhere.run", (2,))])
    assert [message[0] for message in waiting(app)] == ["w.add", "elsewhere.run"]


BAD = {
    "an argument too many": (lambda app: app.add.s(1, 2, 3), TypeError),
    "no text for it": (lambda app: app.add.s(object()), exceptions.EncodeError),
    "no such queue": (lambda app: app.add.s(1).set(queue="unknown"), exceptions.QueueNotFound),
    "no signature": (lambda _: 5, TypeError),
    "no time": (lambda app: app.add.s(1).set(eta="tomorrow"), ValueError),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_call_stops_no_other_and_is_told_at_the_end(app, case):
    make, kind = BAD[case]
    app.conf.task_create_missing_queues = False
    told = "1 of 3 calls could not be sent; the first is number 1"
    with pytest.raises(exceptions.SendManyError, match=told) as caught:
        app.send_many([app.add.s(0), make(app), app.add.s(2)])
    assert list(caught.value.errors) == [1]
    assert isinstance(caught.value.errors[1], kind)
    assert caught.value.__cause__ is caught.value.errors[1]
    assert [message[1] for message in waiting(app)] == [result.id for result in caught.value.results if result]
    assert caught.value.results[1] is None


def test_nothing_after_a_bad_call_is_sent_if_the_caller_says_so(app):
    with pytest.raises(exceptions.SendManyError) as caught:
        app.send_many([app.add.s(0), app.add.s(object()), app.add.s(2)], on_error="stop")
    assert [message[2] for message in waiting(app)] == [[0]]
    assert len(caught.value.results) == 2


def test_nothing_at_all_is_sent_if_the_caller_says_so(app):
    with pytest.raises(exceptions.SendManyError) as caught:
        app.send_many([*map(app.add.s, range(FIRST_BATCH + 5)), app.add.s(object())], on_error="send_nothing")
    assert waiting(app) == []
    assert not any(caught.value.results)
    assert len(app.send_many(map(app.add.s, range(1100)), on_error="send_nothing")) == len(waiting(app)) == 1100


def test_what_cannot_be_meant_is_named(app):
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        app.send_many([], on_error="ignore")
    with pytest.raises(ValueError, match="batch is 0"):
        app.send_many([], batch=0)
    assert app.send_many([]) == []


def test_the_first_calls_of_a_generator_leave_before_it_ends(app):
    def calls():
        for number in range(FIRST_BATCH):
            yield app.add.s(number)
        assert len(waiting(app)) == FIRST_BATCH
        yield app.add.s(FIRST_BATCH)

    assert len(app.send_many(calls())) == FIRST_BATCH + 1


def test_a_hundred_thousand_calls_of_a_generator_need_no_memory_of_their_own(app):
    """Beside the results, which the caller gets."""
    held = 0
    app.send_many(map(app.quiet.s, ()))
    tracemalloc.start()
    try:
        for items in send_in_batches(app, (app.quiet.s() for _ in range(10_000))):
            held += len(items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held == 10_000
    assert peak < 8_000_000


def test_receivers_see_each_message_before_and_after(app):
    """SIG-004, SIG-005: after, when it is with the broker."""
    told = []

    def before(sender, headers, **_):
        headers["mine"] = len(told)
        told.append("before")

    def after(headers, **_):
        told.append(len(waiting(app)))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        app.send_many(map(app.add.s, range(2)))
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert told == ["before", "before", 2, 2]
    assert [message[3]["mine"] for message in waiting(app)] == [0, 1]


def test_a_task_with_a_way_of_its_own_is_called_by_it(app):
    class Counting(app.Task):
        calls = 0

        def apply_async(self, *args, **kwargs):
            type(self).calls += 1
            return super().apply_async(*args, **kwargs)

    task = app.task(name="w.counted", base=Counting, shared=False, lazy=False)(lambda: None)
    app.send_many([task.s()] * 3)
    assert type(task).calls == len(waiting(app)) == 3


def test_calls_run_in_place_where_everything_does(app):
    """SET-181."""
    app.conf.task_always_eager = True
    assert [result.get() for result in app.send_many(map(app.add.s, range(3)))] == [0, 1, 2]


def test_results_inside_a_task_are_its_children_unless_the_caller_says_no(app):
    @app.task(name="w.parent", shared=False, lazy=False, bind=True)
    def parent(self, add_to_parent):
        app.send_many([app.add.s(1), app.add.s(2)], add_to_parent=add_to_parent)
        return len(self.request.children)

    assert parent.apply((True,)).get() == 2
    assert parent.apply((False,)).get() == 0
    roots = {message[3]["root_id"] for message in waiting(app)}
    assert not roots & {message[1] for message in waiting(app)}


def test_a_broker_that_stays_away_ends_the_call_and_says_what_was_sent():
    with Celery("w", broker="redis://127.0.0.1:1", set_as_current=False) as app:
        add = app.task(name="w.add", shared=False, lazy=False)(lambda x: x)
        with pytest.raises(exceptions.OperationalError) as caught:
            app.send_many(map(add.s, range(3)), retry=False)
    assert caught.value.results == []


def test_rabbitmq_has_confirmed_what_was_sent_when_the_call_returns(rabbitmq_url):
    """Once for each batch: 1,000 waits for its word would take a second and more. A refusal is an error."""
    full = Queue("full", queue_arguments={"x-max-length": 5, "x-overflow": "reject-publish"})
    with Celery("w", broker=rabbitmq_url, set_as_current=False) as app:
        app.conf.task_queues = [Queue("celery"), full]
        add = app.task(name="w.add", shared=False, lazy=False)(lambda x: x)
        app.send_many(map(add.s, range(1000)))
        assert app.publisher.run(lambda sender: sender.length("celery")) == 1000
        with pytest.raises(exceptions.OperationalError):
            app.send_many(map(add.s, range(10)), queue="full", retry=False)
