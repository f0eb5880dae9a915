"""The request of an attempt: made when somebody looks at it, and then what the attempt goes by."""

from __future__ import annotations

import contextvars
import json
import pickle
import threading

import pytest

from celery import Celery, signals, states
from celery.app.trace import Tracer
from celery.brokers.redis.envelope import encode

INFO = {"exchange": "", "routing_key": "celery", "priority": 4, "redelivered": False}
STEP = {"task": "w.after", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


@pytest.fixture
def app(tmp_path):
    with Celery("w", broker="memory://", backend=f"sqlite:///{tmp_path}/r.sqlite") as made:
        yield made


@pytest.fixture(params=["an envelope", "a closed text", "read whole"])
def attempt(app, request):
    """Make one attempt of a call, whose message comes in one of the ways in which messages come."""

    def make(name, *args, **options):
        serializer = "msgpack" if request.param == "read whole" else "json"
        app.conf.accept_content = [serializer]
        options = {"serializer": serializer, "priority": 4, "reply_to": "here", **options}
        envelope = app.amqp.message("an-id", name, args, {}, options, app.tasks[name]).envelope
        closed = request.param == "a closed text"
        message = encode(envelope, "", "celery") if closed else envelope
        tracer = Tracer(app, "node@host")
        tracer.before_update = before_update
        return tracer.run(7, message, None if closed else INFO)

    return make


def before_update():
    """What a lane brings."""


def test_a_request_has_all_that_the_message_says(app, attempt):
    seen = {}

    @app.task(name="w.look", bind=True)
    def look(self, x):
        request = self.request
        seen.update(vars(request))
        assert self.request is request
        assert set(request) == set(vars(request))
        assert "origin" in request
        assert request.get("eta", 3) is None
        assert request.get("nothing", 3) == 3
        assert pickle.loads(pickle.dumps(request.as_execution_options()))["task_id"] == "an-id"
        return request.id

    outcome = attempt(
        "w.look", 1, callbacks=[STEP], headers={"mine": "here"}, time_limit=30, soft_time_limit=20, root_id="r",
        parent_id="p", group_id="g", group_index=2, retries=1, shadow="s",
    )  # fmt: skip
    assert json.loads(outcome.writes[0].payload)["result"] == "an-id"
    del seen["outbox"], seen["properties"], seen["origin"]
    assert seen == {
        "lang": "py", "task": "w.look", "id": "an-id", "shadow": "s", "eta": None, "expires": None, "group": "g",
        "group_index": 2, "retries": 1, "timelimit": [30, 20], "root_id": "r", "parent_id": "p", "argsrepr": "(1,)",
        "kwargsrepr": "{}", "ignore_result": None, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
        "mine": "here", "callbacks": [STEP], "errbacks": None, "chain": None, "chord": None, "args": [1], "kwargs": {},
        "called_directly": False, "hostname": "node@host", "delivery_info": INFO, "correlation_id": "an-id",
        "reply_to": "here", "headers": {"mine": "here"}, "before_update": before_update,
    }  # fmt: skip


def test_the_attempt_goes_by_what_the_task_has_made_of_its_request(app, attempt):
    @app.task(name="w.change", bind=True)
    def change(self):
        self.request.callbacks = None
        self.request.update(ignore_result=True)

    @app.task(name="w.leave")
    def leave():
        pass

    changed, left = attempt("w.change", callbacks=[STEP]), attempt("w.leave", callbacks=[STEP])
    assert (changed.state, changed.follow, changed.writes) == (states.SUCCESS, (), ())
    assert [message.envelope.headers["task"] for message in left.follow] == ["w.after"]
    assert len(left.writes) == 1


def test_what_a_task_sends_is_told_in_its_record(app, attempt):
    @app.task(name="w.send")
    def send():
        app.send_task("w.other", task_id="child")

    (write,) = attempt("w.send").writes
    assert json.loads(write.payload)["children"] == [[["child", None], None]]


def test_signals_after_the_attempt_see_its_request(app, attempt):
    seen = []

    @app.task(name="w.quiet")
    def quiet():
        return 3

    def postrun(sender, task_id, **_):
        seen.append((task_id, sender.request.id, sender.request.parent_id, app.current_task is sender))

    signals.task_postrun.connect(postrun)
    try:
        attempt("w.quiet", parent_id="p")
    finally:
        signals.task_postrun.disconnect(postrun)
    assert seen == [("an-id", "an-id", "p", True)]
    assert quiet.request.id is None


def test_threads_of_a_task_see_one_request(app, attempt):
    seen = []

    @app.task(name="w.threads", bind=True)
    def threads(self):
        contexts = [contextvars.copy_context() for _ in range(8)]
        together = threading.Barrier(8)

        def look():
            together.wait(10)
            seen.append(self.request)

        started = [threading.Thread(target=context.run, args=(look,)) for context in contexts]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        seen.append(self.request)

    assert attempt("w.threads").state == states.SUCCESS
    assert len(seen) == 9
    assert len({id(request) for request in seen}) == 1


def test_a_task_that_calls_another_as_a_function_keeps_its_own_request(app, attempt):
    @app.task(name="w.inner", bind=True)
    def inner(self):
        return self.request.id, self.request.called_directly

    @app.task(name="w.outer", bind=True)
    def outer(self):
        return [inner(), app.current_worker_task.request.id, self.request.called_directly]

    (write,) = attempt("w.outer").writes
    assert json.loads(write.payload)["result"] == [[None, True], "an-id", False]


def test_what_cannot_be_stored_fails_the_attempt_though_nobody_saw_its_request(app, attempt):
    @app.task(name="w.unstorable")
    def unstorable():
        return object()

    outcome = attempt("w.unstorable", callbacks=[STEP])
    assert (outcome.state, outcome.follow) == (states.FAILURE, ())
    assert json.loads(outcome.writes[0].payload)["status"] == "FAILURE"
