"""Tasks: what they are called, hold, check and send (API-023..037)."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import pickle

import pytest

from celery import Celery, Task, signals
from celery.app.task import Context
from celery.exceptions import EncodeError

GLOBAL_APP = Celery("pickled", broker="memory://", set_as_current=False)


@GLOBAL_APP.task
def importable(x):
    return x


@pytest.fixture
def app():
    with Celery("w", broker="memory://") as made:
        yield made


@pytest.fixture
def sent():
    """Headers of what is published, with the decoded body and the routing key."""
    messages = []

    def keep(headers, body, routing_key, properties, **_):
        messages.append({**headers, "body": body, "routing_key": routing_key, "properties": properties})

    signals.before_task_publish.connect(keep)
    yield messages
    signals.before_task_publish.disconnect(keep)


# -- identity


def test_a_task_is_named_after_module_and_function(app):
    @app.task
    def add():
        """Adds."""

    @app.task(name="explicit")
    def other(): ...

    assert add.name == f"{__name__}.add"
    assert other.name == "explicit"
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert repr(other).startswith("<@task: explicit of <Celery w at 0x")
    assert app.tasks["explicit"] is app.tasks[other.name]


def test_a_task_of_the_main_module_is_named_after_the_application(app):
    def script(): ...

    script.__module__ = "__main__"
    assert app.task(script).name == "w.script"


def test_a_task_shows_the_signature_of_its_body(app):
    @app.task
    def add(x: int, y: int = 2) -> int: ...

    @app.task(bind=True)
    def bound(self, x): ...

    assert str(inspect.signature(app.tasks[add.name])) == "(x: 'int', y: 'int' = 2) -> 'int'"
    assert str(inspect.signature(app.tasks[bound.name])) == "(x)"


def test_a_task_pickles_by_name():
    GLOBAL_APP.set_current()
    task = GLOBAL_APP.tasks[importable.name]
    assert pickle.loads(pickle.dumps(task)) is task
    assert pickle.dumps(task, 0).startswith(b"ccelery.app.registry\n_unpickle_task_v2\n")  # what 5.7 calls


def test_task_is_subscriptable_at_run_time():
    assert Task[[int], str] is not None


# -- running the body


def test_calling_a_task_runs_its_body_in_a_request_of_its_own(app):
    @app.task(bind=True)
    def who(self, *args, **kwargs):
        return self.request.called_directly, self.request.args, self.request.kwargs, self.name

    assert who(1, two=2) == (True, (1,), {"two": 2}, who.name)
    assert who.request.args is None
    assert isinstance(who.request, Context)


def test_a_task_class_is_instantiated_once(app):
    made = []

    class Counting(app.Task):
        name = "counting"

        def __init__(self):
            made.append(self)
            self.calls = 0

        def run(self):
            self.calls += 1
            return self.calls

    task = app.register_task(Counting())
    assert (task(), task(), len(made)) == (1, 2, 1)
    assert app.tasks["counting"] is task


def test_a_task_without_a_body_says_so(app):
    class Empty(app.Task):
        name = "empty"

    with pytest.raises(NotImplementedError, match="empty"):
        app.register_task(Empty)()


# -- what binding fills in


def test_unset_attributes_come_from_the_settings():
    with Celery("w", broker="memory://", task_acks_late=True, task_default_rate_limit="5/m", task_time_limit=60) as app:

        @app.task
        def plain(): ...

        @app.task(acks_late=False, time_limit=5)
        def own(): ...

        assert (plain.acks_late, plain.rate_limit, plain.time_limit, plain.serializer) == (True, "5/m", 60, "json")
        assert (own.acks_late, own.rate_limit, own.time_limit) == (False, "5/m", 5)


def test_annotations_change_tasks():
    with Celery("w", broker="memory://", task_annotations={"slow": {"rate_limit": "1/h"}, "*": {"priority": 7}}) as app:

        @app.task(name="slow")
        def slow(): ...

        assert (slow.rate_limit, slow.priority) == ("1/h", 7)


def test_a_base_class_gives_its_tasks_what_it_has(app):
    class Base(app.Task):
        max_retries = 9

        def hello(self):
            return f"hello from {self.name}"

    @app.task(base=Base, name="based")
    def based(): ...

    assert (based.max_retries, based.hello()) == (9, "hello from based")


def test_operational_error_is_what_kombu_raises(app):
    from kombu.exceptions import OperationalError

    assert app.Task.OperationalError is OperationalError


# -- calling


def test_delay_sends_the_arguments(app, sent):
    @app.task(name="add")
    def add(x, y):
        return x + y

    result = add.delay(1, y=2)
    assert (sent[0]["id"], sent[0]["task"], sent[0]["body"][:2]) == (result.id, "add", ([1], {"y": 2}))
    assert sent[0]["root_id"] == result.id
    assert sent[0]["routing_key"] == "celery"


def test_coroutines_send_tasks_without_blocking(app, sent):
    @app.task
    def add(x, y): ...

    async def scenario():
        return [await add.adelay(1, 2), await add.aapply_async((3,), {"y": 4}, queue="slow")]

    first, second = asyncio.run(scenario())
    assert {message["id"]: message["routing_key"] for message in sent} == {first.id: "celery", second.id: "slow"}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, 2, 3), {}), ((1,), {"z": 2}), ((1, 2), {"y": 2}), ((), {"y": 2})],
)
def test_a_wrong_call_is_refused_before_it_is_sent(app, sent, args, kwargs):
    @app.task
    def add(x, y): ...

    @app.task(bind=True)
    def bound(self, x, y): ...

    @app.task(autoretry_for=(ValueError,))
    def retried(x, y): ...

    for task in (add, bound, retried):
        with pytest.raises(TypeError, match=task.__name__):
            task.apply_async(args, kwargs)
    assert not sent


def test_checking_can_be_switched_off(app, sent):
    @app.task(typing=False)
    def add(x, y): ...

    add.delay(1)
    with Celery("loose", broker="memory://", strict_typing=False) as loose:

        @loose.task
        def other(x): ...

        other.delay()
    assert len(sent) == 2


def test_options_of_the_task_are_options_of_its_calls(app, sent):
    @app.task(queue="slow", priority=3, expires=60)
    def add(): ...

    add.delay()
    add.apply_async(queue="fast")
    assert [message["routing_key"] for message in sent] == ["slow", "fast"]
    assert sent[0]["properties"]["priority"] == 3
    assert sent[0]["expires"] is not None


def test_countdown_becomes_an_absolute_time(app, sent):
    @app.task
    def add(): ...

    before = datetime.datetime.now(datetime.UTC)
    add.apply_async(countdown=60, eta=before - datetime.timedelta(days=1))
    eta = datetime.datetime.fromisoformat(sent[0]["eta"])
    assert datetime.timedelta(seconds=59) < eta - before < datetime.timedelta(seconds=70)


def test_a_soft_limit_beyond_the_hard_one_is_refused(app):
    @app.task(name="limited")
    def limited(): ...

    with pytest.raises(ValueError, match="limited"):
        limited.apply_async(soft_time_limit=10, time_limit=5)
    with pytest.raises(TypeError, match="time_limit of task .* is 'soon': it must be a number of seconds"):
        limited.apply_async(time_limit="soon")


def test_an_argument_that_does_not_serialize_is_named(app):
    @app.task
    def add(x): ...

    with pytest.raises(EncodeError, match="object"):
        add.delay(object())


def test_a_shadow_name_is_shown_instead(app, sent):
    class Shadowed(app.Task):
        def shadow_name(self, args, kwargs, options):
            return f"shadow of {args[0]}"

    @app.task(base=Shadowed)
    def add(x): ...

    add.delay(1)
    add.apply_async((1,), shadow="given")
    assert [message["shadow"] for message in sent] == ["shadow of 1", "given"]


def test_headers_of_the_caller_travel(app, sent):
    @app.task
    def add(): ...

    add.apply_async(headers={"tenant": "a"})
    assert sent[0]["tenant"] == "a"


# -- signatures


def test_signatures_of_a_task(app):
    @app.task(name="add")
    def add(x, y): ...

    assert add.s(1) == add.signature((1,)) == add.subtask((1,))
    assert add.si(1, 2).immutable
    assert add.s(1).type.name == "add"


def test_a_signature_sends_a_request_again(app):
    @app.task(name="add")
    def add(x): ...

    request = Context(id="i", args=[1], kwargs={}, retries=2, delivery_info={"exchange": "", "routing_key": "slow"})
    made = add.signature_from_request(request, retries=3)
    assert made.args == (1,)
    assert (made.options["task_id"], made.options["retries"], made.options["queue"]) == ("i", 3, "slow")
    assert add.signature_from_request(request, queue="fast").options["queue"] == "fast"
