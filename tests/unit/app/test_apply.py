"""Eager mode: whole attempts in place (API-030, API-031, API-033, API-034)."""

from __future__ import annotations

import asyncio

import pytest

from celery import Celery, signals, states
from celery.exceptions import EncodeError, Ignore, MaxRetriesExceededError, Reject, Retry
from celery.result import EagerResult, allow_join_result


@pytest.fixture
def app(tmp_path):
    with Celery("w", broker="memory://", backend=f"sqlite:///{tmp_path}/r.sqlite") as made:
        yield made


@pytest.fixture
def eager(app):
    app.conf.task_always_eager = True
    return app


def test_apply_gives_the_value(app):
    @app.task
    def add(x, y):
        return x + y

    result = add.apply((1,), {"y": 2}, task_id="an-id")
    assert isinstance(result, EagerResult)
    assert (result.get(), result.id, result.state, result.name) == (3, "an-id", states.SUCCESS, add.name)


def test_an_async_task_is_awaited(app):
    @app.task(bind=True)
    async def wait(self, x):
        await asyncio.sleep(0)
        return self.request.id, x

    assert wait.apply((1,), task_id="an-id").get() == ("an-id", 1)


def test_an_async_task_can_be_applied_from_a_coroutine(eager):
    @eager.task
    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    async def scenario():
        return await (await double.adelay(4)).aget()

    assert asyncio.run(scenario()) == 8


def test_a_failure_is_kept_unless_it_shall_be_thrown(app):
    @app.task
    def fail():
        raise ValueError("no")

    result = fail.apply()
    assert result.state == states.FAILURE
    assert "ValueError: no" in result.traceback
    with pytest.raises(ValueError, match="no"):
        result.get()
    with pytest.raises(ValueError, match="no"):
        fail.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        fail.apply()
    assert fail.apply(throw=False).failed()


def test_the_request_says_that_it_is_eager(app):
    @app.task(bind=True)
    def look(self):
        request = self.request
        return (
            request.is_eager, request.called_directly, request.delivery_info["is_eager"], request.headers,
            request.tenant, request.root_id, request.retries,
        )  # fmt: skip

    found = look.apply(headers={"tenant": "a"}, task_id="i", retries=2).get()
    assert found == (True, False, True, {"tenant": "a"}, "a", "i", 2)


def test_retries_are_made_at_once(app):
    @app.task(bind=True, max_retries=3)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=3600)
        return self.request.retries

    assert flaky.apply().get() == 2


def test_retries_end_with_the_reason(app):
    @app.task(bind=True, max_retries=1)
    def failing(self):
        try:
            raise KeyError("reason")
        except KeyError as exc:
            raise self.retry(exc=exc, countdown=0) from exc

    @app.task(bind=True, max_retries=1)
    def asking(self):
        raise self.retry(countdown=0)

    with pytest.raises(KeyError, match="reason"):
        failing.apply().get()
    with pytest.raises(MaxRetriesExceededError, match="Can't retry"):
        asking.apply().get()


def test_a_retry_may_bring_new_arguments(app):
    @app.task(bind=True)
    def count(self, x, y=0):
        if self.request.retries == 0:
            raise self.retry(kwargs={"y": 5})
        return x, y

    assert count.apply((1,)).get() == (1, 5)


def test_links_are_applied(app):
    seen = []

    @app.task
    def keep(*args):
        seen.append(args)

    @app.task
    def keep_id(task_id):
        seen.append(task_id)

    @app.task
    def work(x):
        return 1 // x

    work.apply((1,), link=keep.s("after"))
    work.apply((1,), link=[keep.s("a"), keep.si("b")])
    work.apply((0,), link=keep.s(), link_error=keep_id.s(), task_id="failed")
    assert seen == [(1, "after"), (1, "a"), ("b",), "failed"]


def test_hooks_run_in_the_documented_order(app):
    seen = []

    class Hooked(app.Task):
        def before_start(self, task_id, args, kwargs):
            seen.append(("before_start", task_id, args, kwargs))

        def on_success(self, retval, task_id, args, kwargs):
            seen.append(("on_success", retval))

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append(("on_failure", type(exc), einfo.traceback.splitlines()[-1]))

        def on_retry(self, exc, task_id, args, kwargs, einfo):
            seen.append(("on_retry", str(exc)))

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            seen.append(("after_return", status))

    @app.task(base=Hooked, bind=True)
    def work(self, x):
        if x < 0 and not self.request.retries:
            raise self.retry(exc=ValueError("negative"), countdown=0)
        return 1 // x

    work.apply((1,), task_id="i")
    assert seen == [("before_start", "i", (1,), {}), ("on_success", 1), ("after_return", states.SUCCESS)]
    seen.clear()
    work.apply((0,))
    assert seen[1:] == [
        ("on_failure", ZeroDivisionError, "ZeroDivisionError: integer division or modulo by zero"),
        ("after_return", states.FAILURE),
    ]
    seen.clear()
    work.apply((-1,))
    assert [entry[0] for entry in seen] == ["before_start", "on_retry", "before_start", "on_success", "after_return"]


def test_signals_tell_of_an_attempt(app):
    seen = []

    @app.task
    def work(x):
        return 1 // x

    kinds = ("task_prerun", "task_success", "task_failure", "task_postrun")
    receivers = [(getattr(signals, kind), lambda kind=kind, **_: seen.append(kind)) for kind in kinds]
    for signal, receiver in receivers:
        signal.connect(receiver, sender=app.tasks[work.name], weak=False)
    try:
        work.apply((1,))
        work.apply((0,))
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver, sender=app.tasks[work.name])
    assert seen == ["task_prerun", "task_success", "task_postrun", "task_prerun", "task_failure", "task_postrun"]


def test_an_error_in_a_hook_is_raised(app):
    class Hooked(app.Task):
        def on_success(self, retval, task_id, args, kwargs):
            raise LookupError("hook")

    @app.task(base=Hooked)
    def work(): ...

    with pytest.raises(LookupError, match="hook"):
        work.apply()


@pytest.mark.parametrize(
    ("raised", "state"),
    [(Ignore(), states.IGNORED), (Reject("r"), states.FAILURE), (Reject("r", requeue=True), states.REJECTED)],
)
def test_tasks_can_leave_without_a_result(app, raised, state):
    @app.task
    def leave():
        raise raised

    assert leave.apply().state == state


def test_results_are_stored_only_where_wanted(app):
    @app.task
    def plain():
        return 1

    @app.task(store_eager_result=True)
    def stored(x):
        return 1 // x

    @app.task(store_eager_result=True, ignore_result=True)
    def ignored():
        return 1

    assert app.AsyncResult(plain.apply().id).state == states.PENDING
    assert app.AsyncResult(ignored.apply().id).state == states.PENDING
    assert app.AsyncResult(stored.apply((1,)).id).get(timeout=5) == 1
    assert app.AsyncResult(stored.apply((0,)).id).state == states.FAILURE


def test_always_eager_takes_arguments_through_the_serializer(eager):
    @eager.task
    def kinds(value, **kwargs):
        return type(value), type(kwargs["pair"])

    result = kinds.delay((1, 2), pair=(3, 4))
    assert result.get() == (list, list)
    with pytest.raises(EncodeError):
        kinds.delay(object(), pair=())


def test_always_eager_refuses_waiting_inside_tasks(eager):
    @eager.task
    def inner():
        return 1

    @eager.task
    def outer(allowed):
        if allowed:
            with allow_join_result():
                return inner.delay().get()
        return inner.delay().get()

    with pytest.raises(RuntimeError, match="within a task"):
        outer.delay(False).get()
    assert outer.delay(True).get() == 1


def test_tasks_called_inside_know_where_they_come_from(app):
    @app.task(bind=True)
    def inner(self):
        return self.request.root_id, self.request.parent_id

    @app.task(bind=True)
    def outer(self):
        return inner.apply().get()

    assert outer.apply(task_id="outer").get() == ("outer", "outer")


def test_an_async_task_may_be_applied_inside_a_running_loop(app):
    import asyncio

    @app.task(name="nap")
    async def nap(value):
        await asyncio.sleep(0)
        return value

    async def main():
        return nap.apply((3,)).get()

    assert asyncio.run(main()) == 3


def test_without_an_exception_given_the_last_retry_raises_that_there_were_too_many(app):
    caught = []

    @app.task(bind=True, max_retries=1)
    def work(self):
        try:
            raise LookupError("handled")
        except LookupError:
            try:
                self.retry(countdown=0)
            except MaxRetriesExceededError as exc:
                caught.append((str(exc), exc.__context__))
                raise

    with pytest.raises(MaxRetriesExceededError):
        work.apply(throw=True)
    ((text, context),) = caught
    assert text.endswith("args:() kwargs:{}")
    assert isinstance(context, LookupError)


def test_a_retry_of_a_task_that_was_called_as_a_function_says_so(app):
    @app.task(bind=True)
    def work(self, exc):
        try:
            raise LookupError("handled")
        except LookupError:
            self.retry(exc=exc)

    for given, kind in ((None, Retry), (KeyError("k"), KeyError)):
        with pytest.raises(kind) as caught:
            work(given)
        assert isinstance(caught.value.__cause__, LookupError)
