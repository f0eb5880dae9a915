"""The asking side of remote control against a bare node: what is sent, and what is made of replies."""

import asyncio
import json
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from celery import Celery
from celery.app.control import Control, Inspect, flatten_reply
from celery.brokers import memory
from celery.brokers.topology import Exchange, Queue
from celery.exceptions import CeleryWarning, DuplicateNodenameWarning
from celery.wire.envelope import Envelope

VECTORS = Path(__file__).parents[2] / "data" / "wire_vectors" / "control_redis.json"
CALLS = {vector["name"]: vector for vector in json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]}

#: The calls of the capture name the machine they run on.
HOST = socket.gethostname()


@pytest.fixture
def app():
    with Celery(broker=f"memory://{uuid.uuid4()}", set_as_current=False) as made:
        yield made


@contextmanager
def nodes(app, answers):
    """Nodes that answer every request meant for anybody; `answers`: (node name, reply) pairs. Gives the requests."""
    heard, running = [], threading.Event()
    ending = []

    async def main():
        over = asyncio.Event()
        ending.append(lambda loop=asyncio.get_running_loop(): loop.call_soon_threadsafe(over.set))
        receiver = memory.Receiver(app.publisher.url, {}, node="n")
        sender = memory.Sender(app.publisher.url, {})
        mailbox = app.control.mailbox

        def on_message(envelope):
            request = mailbox.read_request(envelope)
            heard.append((envelope, request))
            if request.reply_to:
                sender.publish([mailbox.publish_reply(request, name, value, clock=50) for name, value in answers])

        await receiver.open()
        await receiver.listen(mailbox.node_queue("n@h"), on_message)
        running.set()
        await over.wait()
        await receiver.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert running.wait(10)
    try:
        yield heard
    finally:
        ending[0]()
        thread.join(10)


def body_of(envelope):
    body = json.loads(envelope.body)
    for private in ("ticket", "reply_to"):
        body.pop(private, None)
    return body


@pytest.mark.parametrize("name", [name for name in CALLS if name != "election"])
def test_a_call_sends_what_celery_sends(name, app):
    """CTL-046: the calls of the capture, made again."""
    captured = CALLS[name]
    call = captured["call"].replace("timeout=.7", "timeout=5, limit=1")
    with nodes(app, [(f"w1@{HOST}", {"ok": "pong"})]) as heard:
        context = {"C": app.control, "I": app.control.inspect(timeout=5, limit=1), "socket": socket}
        eval(call, context)
        wait_until(lambda: heard)
    sent = captured["requests"][0]["body"]
    wanted = {key: value for key, value in sent.items() if key not in {"ticket", "reply_to"}}
    if wanted["destination"]:
        wanted["destination"] = [f"w1@{HOST}"]
    assert body_of(heard[0][0]) == wanted
    assert bool(heard[0][1].reply_to) is ("reply_to" in sent)


def wait_until(condition, within=10.0):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestBroadcast:
    """CTL-002 to CTL-004."""

    def test_without_reply_there_is_nothing_to_wait_for(self, app):
        assert app.control.broadcast("ping") is None

    def test_nobody_there_is_an_empty_list_after_the_timeout(self, app):
        started = time.monotonic()
        assert app.control.broadcast("ping", reply=True, timeout=0.1) == []
        assert 0.09 < time.monotonic() - started < 5

    def test_replies_are_collected_and_each_is_told(self, app):
        told = []
        with nodes(app, [("a@h", 1), ("b@h", 2)]):
            got = app.control.broadcast("x", reply=True, limit=2, timeout=10, callback=told.append)
        assert got == told == [{"a@h": 1}, {"b@h": 2}]

    def test_as_many_replies_as_destinations_are_enough(self, app):
        with nodes(app, [("a@h", 1), ("b@h", 2)]) as heard:
            assert app.control.broadcast("x", reply=True, destination="a@h", timeout=10) == [{"a@h": 1}]
        assert heard[0][1].destination == ["a@h"]

    def test_extra_keywords_are_arguments(self, app):
        with nodes(app, []) as heard:
            app.control.broadcast("x", {"a": 1}, b=2)
            wait_until(lambda: heard)
        assert heard[0][1].arguments == {"a": 1, "b": 2}

    def test_a_pattern_without_a_matcher_is_not_sent(self, app):
        with nodes(app, []) as heard:
            app.control.broadcast("x", pattern="w*")
            wait_until(lambda: heard)
        assert (heard[0][1].pattern, heard[0][1].matcher) == (None, None)

    def test_the_request_tells_clock_and_expiry(self, app):
        with nodes(app, []) as heard:
            app.control.broadcast("x", timeout=5)
            wait_until(lambda: heard)
        headers = heard[0][0].headers
        assert headers["clock"] == app.clock.value == 1
        assert time.time() < headers["expires"] <= time.time() + 5

    def test_a_reply_moves_the_clock(self, app):
        """wire.md 5.5."""
        with nodes(app, [("a@h", 1)]):
            app.control.broadcast("x", reply=True, limit=1, timeout=10)
        assert app.clock.value == 51

    def test_the_reply_queue_is_gone_afterwards(self, app):
        with nodes(app, [("a@h", 1)]) as heard:
            app.control.broadcast("x", reply=True, limit=1, timeout=10)
        address = heard[0][1].reply_to
        late = app.control.mailbox.publish_reply(heard[0][1], "late@h", 1, clock=1)
        app.publisher.publish([late])
        queue = app.control.mailbox.reply_queue(address["routing_key"]).name
        assert app.publisher.run(lambda sender: sender.length(queue)) == 0

    def test_a_failing_callback_does_not_leave_the_queue_behind(self, app):
        def fail(reply):
            raise ZeroDivisionError

        with nodes(app, [("a@h", 1)]) as heard, pytest.raises(ZeroDivisionError):
            app.control.broadcast("x", reply=True, timeout=10, callback=fail)
        app.publisher.publish([app.control.mailbox.publish_reply(heard[0][1], "late@h", 1, clock=1)])
        queue = app.control.mailbox.reply_queue(heard[0][1].reply_to["routing_key"]).name
        assert app.publisher.run(lambda sender: sender.length(queue)) == 0

    def test_many_threads_ask_at_once_and_get_their_own_replies(self, app):
        results = {}

        def ask(number):
            results[number] = app.control.broadcast("x", {"n": number}, reply=True, limit=1, timeout=20)

        with nodes(app, [("a@h", "same")]) as heard:
            threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert len(heard) == len({request.ticket for _, request in heard}) == 8
        assert results == {number: [{"a@h": "same"}] for number in range(8)}


class TestInspect:
    """CTL-007."""

    def test_nobody_replied_is_none(self, app):
        assert app.control.inspect(timeout=0.05).ping() is None

    def test_replies_are_one_mapping(self, app):
        with nodes(app, [("a@h", 1), ("b@h", 2)]):
            assert app.control.inspect(limit=2, timeout=10).stats() == {"a@h": 1, "b@h": 2}

    def test_one_name_gets_its_own_reply_only(self, app):
        with nodes(app, [("a@h", [1])]):
            assert app.control.inspect("a@h", timeout=10).active() == [1]

    def test_a_list_of_one_gets_a_mapping(self, app):
        with nodes(app, [("a@h", [1])]):
            assert app.control.inspect(["a@h"], timeout=10).active() == {"a@h": [1]}

    def test_replies_that_do_not_fit_the_pattern_are_left_out(self, app):
        with nodes(app, [("a@h", 1), ("b@h", 2)]):
            asked = app.control.inspect(pattern="b*", matcher="glob", limit=2, timeout=10)
            assert asked.ping() == {"b@h": 2}

    def test_nodes_of_one_name_are_warned_of(self, app):
        with nodes(app, [("a@h", 1), ("a@h", 2)]), pytest.warns(DuplicateNodenameWarning, match="a@h"):
            assert app.control.inspect(limit=2, timeout=10).ping() == {"a@h": 2}

    def test_ping_keeps_its_destination(self, app):
        inspect = app.control.inspect(timeout=0.05)
        inspect.ping(destination=["a@h"])
        assert inspect.destination == ["a@h"]

    def test_query_task_takes_ids_or_a_list_of_them(self, app):
        with nodes(app, [("a@h", {})]) as heard:
            inspect = app.control.inspect(limit=1, timeout=10)
            inspect.query_task("1", "2")
            inspect.query_task(["1", "2"])
        assert [request.arguments for _, request in heard] == [{"ids": ["1", "2"]}] * 2

    def test_the_class_belongs_to_the_application(self, app):
        assert issubclass(app.control.inspect, Inspect)
        assert app.control.inspect().app is app


class TestControl:
    def test_flatten_reply_merges(self):
        """CTL-047."""
        assert flatten_reply([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}

    @pytest.mark.parametrize("method", ["purge", "discard_all"])
    def test_purge_empties_the_queues_and_counts(self, app, method):
        for _ in range(3):
            app.send_task("w.add")
        assert getattr(app.control, method)() == 3
        assert app.control.purge() == 0

    def test_an_election_of_one_is_warned_of(self, app):
        """wire.md 5.6."""
        with nodes(app, [("a@h", {"ok": "pong"})]) as heard:
            with pytest.warns(CeleryWarning, match="Only one worker"):
                app.control.election("id", "topic", {"x": 1})
            wait_until(lambda: len(heard) == 2)
        sent = CALLS["election"]["requests"][0]["body"]
        assert body_of(heard[1][0]) == {**sent, "arguments": {"id": "id", "topic": "topic", "action": {"x": 1}}}

    def test_a_control_class_of_ones_own_is_used(self):
        class Mine(Control):
            pass

        with Celery(broker="memory://", control=Mine, set_as_current=False) as app:
            assert isinstance(app.control, Mine)


class TestEvents:
    """EVT-002, wire.md 5.4."""

    @pytest.fixture
    def inbox(self, app):
        sender = memory.Sender(app.publisher.url, {})
        inbox = sender.inbox(Queue("monitor", Exchange("celeryev", "topic"), "task.#"))
        yield inbox
        inbox.close()

    def test_an_event_tells_who_when_and_what(self, app, inbox):
        with app.events.default_dispatcher(hostname="w1@h") as dispatcher:
            dispatcher.send("task-progress", uuid="1", percent=50)
        envelope = inbox.get(5)
        assert isinstance(envelope, Envelope)
        event = json.loads(envelope.body)
        assert envelope.headers == {"hostname": "w1@h"}
        assert envelope.properties == {"delivery_mode": 1, "priority": 0}
        assert abs(event.pop("timestamp") - time.time()) < 60
        assert event.pop("utcoffset") == -time.localtime().tm_gmtoff / 3600
        assert event.pop("pid")
        assert event == {"hostname": "w1@h", "clock": 1, "type": "task-progress", "uuid": "1", "percent": 50}

    def test_a_client_is_named_after_its_process(self, app, inbox):
        with app.events.default_dispatcher() as dispatcher:
            dispatcher.send("task-x")
        assert json.loads(inbox.get(5).body)["hostname"] == app.origin_name()

    def test_a_disabled_dispatcher_sends_nothing(self, app, inbox):
        with app.events.default_dispatcher(enabled=False) as dispatcher:
            dispatcher.send("task-x")
        assert inbox.get(0.05) is None
        assert app.clock.value == 0

    def test_a_custom_event_of_a_task_names_it(self, app, inbox):
        """EVT-014."""

        @app.task(bind=True, name="w.progress")
        def progress(self):
            self.send_event("task-progress", percent=1)

        result = progress.apply()
        event = json.loads(inbox.get(5).body)
        assert (event["type"], event["uuid"], event["percent"]) == ("task-progress", result.id, 1)
