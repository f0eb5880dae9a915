"""What a task costs, counted so that the clock does not matter: instructions, system calls, commands and bytes.

Instructions are those of Python's virtual machine, as a tracer sees them; they are the same each time, and change with
the version of Python. Work done in C is not among them; what crosses to the system is counted as calls, by name.
"""

from __future__ import annotations

import collections
import select
import sys

import pytest
import redis

from celery import Celery
from celery.app.trace import Tracer
from celery.brokers.amqp.closed import Heads, OpenHeads
from celery.brokers.amqp.connection import Connection
from celery.brokers.amqp.cuts import content_header
from celery.brokers.amqp.frames import METHOD, content_frames, encode_frame
from celery.brokers.amqp.methods import encode_method
from celery.brokers.redis.envelope import encode
from celery.brokers.redis.spinning import TRIES
from celery.concurrency.base import Job
from celery.wire.envelope import Envelope
from celery.wire.protocol import Packing, Template, read_task
from celery.wire.sealed import open_text
from celery.wire.serializers import resolve_accept

#: Recorded with this version; they may grow by a tenth, and should be recorded again when they have shrunk by one.
VERSION = (3, 11)
INSTRUCTIONS = {
    "fill a template": 220,
    # More than before there were cuts (58), in two thirds of the time.
    "encode for Redis": 100,
    "encode for RabbitMQ": 222,
    # 792 where it is opened.
    "a delivery of RabbitMQ": 114,
    # 767 frame by frame.
    "a result by rpc": 293,
    "read a message": 263,
    "delay()": 1900,
    "a call of send_many()": 1006,
}
#: The same of an attempt in a child, from the message as Redis has it to the Outcome, by whether its result is wanted.
ATTEMPT = {"no result": 500, "a result": 695}
#: Calls to the system by the client's own code on Redis: for one `delay()`, beside those for its reply; for one
#: `get()` of what is there already, beside those for the answer.
SENDING = {"poll": 1, "send": 1}
FETCHING = {"send": 1}
#: Bytes that a Redis receives for one task, all protocol included.
BYTES_PER_TASK = 1000
#: Commands for a thousand tasks in one send_many: each takes at most 512.
COMMANDS_PER_THOUSAND = 8
_SYSTEM = {"select", "poll", "sendall", "send", "recv", "recv_into", "setsockopt", "settimeout", "connect"}


def instructions(function) -> int:
    """How many instructions the call takes, after two to warm up: the second message of its kind takes longer once."""
    function()
    function()
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_name == "_spin":  # takes as long as the server does
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def system_calls(function) -> dict[str, int]:
    """Which functions that end in the system the call uses, and how often, after one to warm up."""
    function()
    seen: collections.Counter[str] = collections.Counter()

    def profile(_, event, called):
        if event == "c_call" and called.__name__ in _SYSTEM and called is not select.poll:  # which only makes an object
            seen[called.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return dict(seen)


@pytest.fixture
def add(private_redis):
    url = private_redis().url
    with Celery("budget", broker=url, backend=url, set_as_current=False) as app:
        yield app.task(name="budget.add", shared=False, lazy=False)(lambda x, y: x + y)


def deliveries(envelope_of, count, heads):
    """Receives so many deliveries, whose ids differ."""

    def method(number, name, **arguments):
        return encode_frame(METHOD, number, encode_method(name, arguments))

    connection = Connection()
    connection.receive(method(0, "connection.start", mechanisms="PLAIN") + method(0, "connection.tune"))
    connection.receive(method(0, "connection.open-ok"))
    connection.open_channel()
    connection.receive(method(1, "channel.open-ok"))
    connection.expect_alike(1, heads)
    stream = b""
    for tag in range(10, 10 + count):
        envelope = envelope_of(f"id-{tag}")
        frames = content_frames(1, content_header(envelope), envelope.body, connection.frame_max)
        stream += method(1, "basic.deliver", consumer_tag="c1", delivery_tag=tag, routing_key="celery")
        stream += b"".join(frames)
    return lambda: connection.receive(stream)


def result(name):
    """As the rpc backend sends it."""
    properties = {"correlation_id": name, "delivery_mode": 1, "priority": 0}
    return Envelope({}, b"{}", "application/json", "utf-8", properties)


def work(name, add):
    """What is counted under this name, and how many tasks it is for."""
    template = Template("budget.add", Packing())
    envelope = template.fill("an-id", (2, 2), {}, reply_to="here")
    read = open_text(encode(envelope, "", "celery")).envelope
    accept = resolve_accept(["json"])
    call = add.s(2, 2)
    return {
        "fill a template": (lambda: template.fill("an-id", (2, 2), {}, reply_to="here"), 1),
        "encode for Redis": (lambda: encode(envelope, "", "celery"), 1),
        "encode for RabbitMQ": (lambda: content_header(envelope), 1),
        "a delivery of RabbitMQ": (
            deliveries(lambda name: template.fill(name, (2, 2), {}, reply_to="here"), 20, Heads()), 20,
        ),
        "a result by rpc": (deliveries(result, 20, OpenHeads()), 20),
        "read a message": (lambda: read_task(read, accept), 1),
        "delay()": (lambda: add.delay(2, 2), 1),
        # So few that none leaves because it has grown old: a tracer makes everything slow.
        "a call of send_many()": (lambda: add.app.send_many([call] * 20), 20),
    }[name]


@pytest.mark.skipif(sys.version_info[:2] != VERSION, reason="instructions were counted with another version of Python")
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_a_step_takes_as_many_instructions_as_recorded(name, add):
    function, tasks = work(name, add)
    counted = instructions(function) / tasks
    assert INSTRUCTIONS[name] * 0.9 <= counted <= INSTRUCTIONS[name] * 1.1, f"{name}: {counted:.0f} instructions"


@pytest.mark.skipif(sys.version_info[:2] != VERSION, reason="instructions were counted with another version of Python")
@pytest.mark.parametrize("name", ATTEMPT)
def test_an_attempt_takes_as_many_instructions_as_recorded(name, private_redis):
    url = private_redis().url
    with Celery("budget", broker=url, backend=url, set_as_current=False) as app:
        app.task(name="budget.add", shared=False, lazy=False, ignore_result=name == "no result")(lambda x, y: x + y)
        tracer = Tracer(app)
        envelope = Template("budget.add", Packing()).fill("an-id", (2, 2), {}, reply_to="here")
        job = Job(1, encode(envelope, "", "celery"), None)
        counted = instructions(lambda: tracer.run(1, job.message, job.delivery_info))
        assert len(tracer.run(1, job.message, job.delivery_info).writes) == (name == "a result")
    assert ATTEMPT[name] * 0.9 <= counted <= ATTEMPT[name] * 1.1, f"{name}: {counted} instructions"


def test_a_call_on_redis_goes_to_the_system_three_or_four_times(add):
    """Whether the connection is alive, the command, and its reply, which is asked for until it is there or has kept
    away for too long. No call hides another one: the socket has no time-out of its own, of which each operation would
    begin with a poll.
    """
    seen = system_calls(lambda: add.delay(2, 2))
    slept = seen["poll"] - SENDING["poll"]
    assert slept in (0, 1)
    assert 1 <= seen.pop("recv") <= TRIES + slept
    assert seen == {**SENDING, "poll": SENDING["poll"] + slept}


def test_fetching_a_result_from_redis_goes_to_the_system_two_or_three_times(add):
    """The question, and its answer, which is asked for as that to a call is."""
    results = [add.app.AsyncResult(f"known-{number}") for number in range(2)]
    for result in results:
        add.app.backend.store_result(result.id, 4, "SUCCESS")
    seen = system_calls(lambda: results.pop().get(timeout=30))
    slept = seen.pop("poll", 0)
    assert slept in (0, 1)
    assert 1 <= seen.pop("recv") <= TRIES + slept
    assert seen == FETCHING


def spent(server, function) -> tuple[int, int]:
    """Commands and bytes that a server gets from it; the question itself is not counted."""
    with redis.Redis.from_url(server) as client:
        before = client.info("stats")
        function()
        after = client.info("stats")
        asked = client.info("stats")
    keys = "total_commands_processed", "total_net_input_bytes"
    commands, taken = (after[key] - before[key] - (asked[key] - after[key]) for key in keys)
    return commands, taken


def test_a_call_is_one_command_on_redis_and_few_bytes(add):
    add.delay(2, 2)
    commands, taken = spent(add.app.conf.broker_url, lambda: [add.delay(2, 2) for _ in range(50)])
    assert commands == 50
    assert taken / 50 <= BYTES_PER_TASK


def test_a_thousand_calls_in_one_are_few_commands_on_redis(add):
    add.delay(2, 2)
    commands, taken = spent(add.app.conf.broker_url, lambda: add.app.send_many(add.s(2, 2) for _ in range(1000)))
    assert commands <= COMMANDS_PER_THOUSAND
    assert taken / 1000 <= BYTES_PER_TASK
