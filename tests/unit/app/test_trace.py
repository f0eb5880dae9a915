"""One attempt, from message to Outcome (wire.md 1.6, API-038, SIG-040)."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from celery import Celery, Task, signals, states
from celery.app import trace
from celery.app.einfo import ExceptionInfo
from celery.app.outcome import Disposition
from celery.app.trace import Tracer, build_tracer, task_has_custom, trace_task
from celery.backends.redis import RedisBackend
from celery.exceptions import Ignore, Reject
from celery.wire.compression import pack_result


@pytest.fixture
def app(tmp_path):
    with Celery("w", broker="memory://", backend=f"sqlite:///{tmp_path}/r.sqlite") as made:
        yield made


@pytest.fixture
def run(app):
    """Make one attempt of a call, as a worker's child does."""

    def attempt(name, *args, _async=False, _options=None, **kwargs):
        tracer = Tracer(app, "node@host")
        options = {"serializer": "json", **(_options or {})}
        task = app.tasks.get(name)
        envelope = app.amqp.message("an-id", name, args, kwargs, options, task).envelope
        info = {"exchange": "", "routing_key": "celery", "priority": None, "redelivered": False}
        if _async:
            return asyncio.run(tracer.arun(7, envelope, info))
        return tracer.run(7, envelope, info)

    return attempt


def record(write):
    return json.loads(write.payload)


def test_a_success_is_recorded_and_acknowledged(app, run):
    @app.task(name="add")
    def add(x, y):
        return x + y

    outcome = run("add", 1, y=2)
    assert (outcome.job, outcome.state, outcome.disposition) == (7, states.SUCCESS, Disposition.ACK)
    (write,) = outcome.writes
    assert (write.task_id, record(write)["result"], record(write)["status"]) == ("an-id", 3, "SUCCESS")
    assert outcome.started > 0
    assert outcome.runtime >= 0
    assert not outcome.follow
    assert not outcome.settled


def test_a_failure_is_recorded_with_its_traceback(app, run):
    @app.task(name="fail")
    def fail():
        raise ValueError("no")

    outcome = run("fail")
    (write,) = outcome.writes
    assert outcome.state == states.FAILURE
    assert outcome.summary == "ValueError('no')"
    assert record(write)["result"] == {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
    assert record(write)["traceback"].rstrip().endswith("ValueError: no")
    assert "celery/app/trace.py" not in record(write)["traceback"]


@pytest.mark.parametrize("as_async", [False, True])
def test_a_coroutine_is_an_attempt_as_well(app, run, as_async):
    @app.task(name="wait", bind=True)
    async def wait(self, x):
        await asyncio.sleep(0)
        return [self.request.id, self.request.hostname, x]

    outcome = run("wait", 1, _async=as_async)
    assert record(outcome.writes[0])["result"] == ["an-id", "node@host", 1]


def test_a_retry_follows_under_the_same_id(app, run):
    @app.task(name="again", bind=True)
    def again(self):
        raise self.retry(exc=KeyError("k"), countdown=60)

    outcome = run("again")
    assert outcome.state == states.RETRY
    (message,) = outcome.follow
    headers = message.envelope.headers
    assert (headers["id"], headers["retries"], message.routing_key) == ("an-id", 1, "celery")
    assert headers["eta"] is not None
    assert record(outcome.writes[0])["status"] == "RETRY"


@pytest.mark.parametrize(
    ("raised", "state", "disposition", "writes"),
    [
        (Ignore(), states.IGNORED, Disposition.ACK, 0),
        (Reject("r"), states.FAILURE, Disposition.REJECT, 1),
        (Reject("r", requeue=True), states.REJECTED, Disposition.REQUEUE, 0),
    ],
)
def test_an_attempt_can_ask_for_another_end(app, run, raised, state, disposition, writes):
    @app.task(name="leave")
    def leave():
        raise raised

    outcome = run("leave")
    assert (outcome.state, outcome.disposition, len(outcome.writes)) == (state, disposition, writes)


def test_callbacks_and_error_callbacks_follow(app, run):
    @app.task(name="work")
    def work(x):
        return 1 // x

    @app.task(name="after")
    def after(value): ...

    outcome = run("work", 1, _options={"callbacks": [after.s()]})
    (message,) = outcome.follow
    assert (message.envelope.headers["task"], message.envelope.headers["parent_id"]) == ("after", "an-id")
    assert json.loads(message.envelope.body)[0] == [1]
    outcome = run("work", 0, _options={"callbacks": [after.s()], "errbacks": [after.s()]})
    (message,) = outcome.follow
    assert json.loads(message.envelope.body)[0] == ["an-id"]


def test_an_error_callback_that_takes_the_error_is_called_in_place(app, run):
    """CANVAS-010."""
    seen = []

    @app.task(name="fail")
    def fail():
        raise ValueError("no")

    @app.task(name="told")
    def told(request, exc, traceback):
        seen.append((request.id, str(exc), "ValueError" in traceback))

    @app.task(name="retried_told", autoretry_for=(KeyError,))
    def retried_told(task_id): ...

    @app.task(name="bound_told", bind=True)
    def bound_told(self, *given): ...

    outcome = run("fail", _options={"errbacks": [told.s(), retried_told.s(), bound_told.s()]})
    assert seen == [("an-id", "no", True)]
    assert [message.envelope.headers["task"] for message in outcome.follow] == ["retried_told", "bound_told"]


def test_steps_of_a_chain_follow_or_fail_with_it(app, run):
    @app.task(name="work")
    def work(x):
        return 1 // x

    steps = [work.s().set(task_id="third"), work.s().set(task_id="second")]
    outcome = run("work", 1, _options={"chain": [dict(step) for step in steps]})
    (message,) = outcome.follow
    assert message.envelope.headers["id"] == "second"
    assert [step["options"]["task_id"] for step in json.loads(message.envelope.body)[2]["chain"]] == ["third"]
    outcome = run("work", 0, _options={"chain": [dict(step) for step in steps]})
    assert not outcome.follow
    assert {write.task_id: write.state for write in outcome.writes} == dict.fromkeys(
        ("an-id", "second", "third"), states.FAILURE
    )


def test_a_value_that_does_not_serialize_is_a_failure(app, run):
    @app.task(name="odd")
    def odd():
        return object()

    @app.task(name="after")
    def after(value): ...

    outcome = run("odd")
    assert outcome.state == states.FAILURE
    assert record(outcome.writes[0])["result"]["exc_type"] == "EncodeError"
    assert run("odd", _options={"callbacks": [after.s()]}).follow == ()


def test_an_ignored_result_is_not_recorded(app, run):
    @app.task(name="quiet", ignore_result=True)
    def quiet(x):
        return 1 // x

    assert run("quiet", 1).writes == ()
    assert run("quiet", 0).writes == ()
    app.tasks["quiet"].store_errors_even_if_ignored = True
    assert len(run("quiet", 0).writes) == 1


def test_an_unknown_task_is_a_failure_that_is_refused(app, run):
    outcome = run("nobody")
    assert (outcome.state, outcome.disposition) == (states.FAILURE, Disposition.UNREADABLE)
    assert record(outcome.writes[0])["result"]["exc_type"] == "NotRegistered"


def test_the_failure_of_a_killed_attempt_has_its_hooks(app):
    seen = []

    class Hooked(app.Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append((type(exc), task_id))

    @app.task(name="killed", base=Hooked)
    def killed():
        seen.append("ran")

    envelope = app.amqp.message("an-id", killed.name, (), {}, {"serializer": "json"}, None).envelope
    outcome = Tracer(app).aftermath(1, envelope, {}, TimeoutError("too long"))
    assert outcome.state == states.FAILURE
    assert seen == [(TimeoutError, "an-id")]


def test_errors_in_hooks_do_not_lose_the_outcome(app, run):
    class Hooked(app.Task):
        def on_success(self, retval, task_id, args, kwargs):
            raise LookupError("hook")

        def after_return(self, *args):
            raise LookupError("hook")

    @app.task(name="hooked", base=Hooked)
    def hooked():
        return 1

    outcome = run("hooked")
    assert (outcome.state, record(outcome.writes[0])["result"]) == (states.SUCCESS, 1)


def test_messages_sent_by_the_body_are_its_children(app, run):
    @app.task(name="parent", bind=True)
    def parent(self):
        app.send_task("child", task_id="child-id")

    assert record(run("parent").writes[0])["children"] == [[["child-id", None], None]]


def test_signals_come_in_the_documented_order(app, run):
    seen = []

    @app.task(name="told")
    def told():
        seen.append("body")

    kinds = ("task_prerun", "task_success", "task_postrun")
    receivers = [(getattr(signals, kind), lambda kind=kind, **_: seen.append(kind)) for kind in kinds]
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)
    try:
        run("told")
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)
    assert seen == ["task_prerun", "body", "task_success", "task_postrun"]


def test_documented_functions_make_attempts(app):
    @app.task(name="add")
    def add(x):
        return x + 1

    task = app.tasks["add"]
    assert record(build_tracer("add", task, "h")("i", (1,), {}).writes[0])["result"] == 2
    assert trace_task(task, "i", (1,), {}).state == states.SUCCESS
    assert not task_has_custom(task, "on_success")
    assert not task_has_custom(task, "__call__")


@pytest.fixture
def integration(monkeypatch):
    """What an integration puts around `build_tracer`, as Sentry does; notes what its function is given."""
    seen, own = [], trace.build_tracer

    def build(name, task, *args, **kwargs):
        make = own(name, task, *args, **kwargs)

        def around(uuid, args, kwargs, request):
            seen.append((uuid, args, kwargs, request.get("headers")))
            if args == ["refused"]:
                raise LookupError("the integration is broken")
            outcome = make(uuid, args, kwargs, request)
            seen.append(outcome.state)
            return outcome

        return around

    monkeypatch.setattr(trace, "build_tracer", build)
    return seen


def test_attempts_go_through_what_an_integration_puts_around_them(app, run, integration):
    @app.task(name="add")
    def add(x):
        return x + 1

    outcome = run("add", 1, _options={"headers": {"trace": "abc"}})
    assert (outcome.job, outcome.state) == (7, states.SUCCESS)
    assert integration == [("an-id", [1], {}, {"trace": "abc"}), states.SUCCESS]
    assert run("add", None).state == states.FAILURE
    assert integration[3:] == [states.FAILURE]
    del integration[:]
    assert add.apply((4,)).get() == 5
    assert len(integration) == 2


def test_what_is_put_around_attempts_leaves_async_ones_alone(app, run, integration):
    @app.task(name="later")
    async def later(x):
        return x

    assert run("later", 1, _async=True).state == states.SUCCESS
    assert integration == []


def test_an_integration_that_raises_fails_the_attempt(app, run, integration):
    @app.task(name="add")
    def add(x):
        return x

    outcome = run("add", "refused")
    assert outcome.state == states.FAILURE
    assert record(outcome.writes[0])["result"]["exc_type"] == "LookupError"


def test_hooks_are_told_the_exception_with_its_traceback(app, run):
    seen = []

    class Watched(app.Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append(einfo)

    @app.task(name="fail", base=Watched)
    def fail():
        raise KeyError("k")

    run("fail")
    assert isinstance(seen[0], ExceptionInfo)
    assert (seen[0].type, seen[0].exception.args) == (KeyError, ("k",))


def test_a_custom_call_is_honoured(app, run):
    class Called(app.Task):
        def __call__(self, *args, **kwargs):
            return ["called", super().__call__(*args, **kwargs)]

    @app.task(name="custom", base=Called)
    def custom(x):
        return x

    assert record(run("custom", 1).writes[0])["result"] == ["called", 1]


class Shouting(RedisBackend):
    """Writes as nobody else does."""

    def encode(self, data):
        return super().encode(data).upper()


PART = b'[1, "an-id", "SUCCESS", 3]'


@pytest.mark.parametrize(
    ("backend", "settings", "payload"),
    [
        (RedisBackend, {}, PART),
        (RedisBackend, {"result_serializer": "msgpack"}, msgspec.msgpack.encode([1, "an-id", "SUCCESS", 3])),
        (RedisBackend, {"result_compression": "gzip"}, pack_result(PART, "application/x-gzip")),
        (Shouting, {}, PART.upper()),
    ],
)
def test_a_member_tells_its_chord_how_it_ended_as_its_store_writes(backend, settings, payload):
    with Celery("w", broker="memory://", backend=backend, set_as_current=False) as app:
        app.conf.update(settings)
        add = app.task(name="add")(lambda x, y: x + y)
        options = {"serializer": "json", "group_id": "g", "group_index": 4, "chord": dict(add.s())}
        envelope = app.amqp.message("an-id", "add", (1, 2), {}, options, add).envelope
        [part] = Tracer(app, "node@host").run(7, envelope, {}).parts
    assert (part.group_id, part.task_id, part.index, part.state) == ("g", "an-id", 4, "SUCCESS")
    assert part.payload == payload


HOOKS = ("on_success", "on_retry", "on_failure", "after_return")


def recording(told):
    """A base class of tasks that notes which hooks are called, and with what."""

    def hook(name):
        return lambda self, first, *rest: told.append((name, first))

    return type("Recording", (Task,), {name: hook(name) for name in HOOKS})


@pytest.mark.parametrize("requeue", [False, True])
def test_no_hook_is_called_for_a_message_that_is_refused(app, run, requeue):
    told = []

    @app.task(name="refuse", base=recording(told))
    def refuse():
        raise Reject("r", requeue=requeue)

    run("refuse")
    assert told == []


@pytest.mark.parametrize("given", [None, KeyError("k")])
def test_on_retry_gets_the_exception_that_retry_was_given_and_no_other(app, run, given):
    told = []

    @app.task(name="again", bind=True, base=recording(told))
    def again(self):
        try:
            raise ValueError("handled")
        except ValueError:
            self.retry(exc=given)

    assert run("again").state == states.RETRY
    assert told == [("on_retry", given)]
