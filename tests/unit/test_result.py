"""Results of one task, of many, and of tasks that ran in place (API-052..059)."""

from __future__ import annotations

import asyncio
import copy
import datetime
import pickle
import threading
import traceback

import pytest

from celery import Celery, states
from celery.exceptions import ChordError, ImproperlyConfigured, IncompleteStream, TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    denied_join_result,
    result_from_tuple,
)

BOUND = 10.0


@pytest.fixture
def app(tmp_path):
    with Celery("results", broker="memory://", backend=f"sqlite:///{tmp_path}/results.sqlite") as made:
        yield made


@pytest.fixture
def finish(app):
    """Store the final record of a task, as a worker would."""

    def store(result, value=None, state=states.SUCCESS, **fields):
        app.backend.store_result(getattr(result, "id", result), value, state, **fields)
        return result

    return store


@pytest.fixture
def finish_later(app, finish):
    """The same, from another thread, once the caller has begun to wait."""
    threads = []

    def start(*outcomes):
        begun = threading.Event()

        def store():
            begun.wait(BOUND)
            for outcome in outcomes:
                finish(*outcome)

        thread = threading.Thread(target=store)
        thread.start()
        threads.append((begun, thread))
        return begun

    yield start
    for begun, thread in threads:
        begun.set()
        thread.join(BOUND)


def three(app):
    return [app.AsyncResult(name) for name in "abc"]


# -- one task


def test_a_result_needs_an_id(app):
    with pytest.raises(ValueError, match="requires the id"):
        app.AsyncResult(None)


def test_an_unknown_task_is_pending_and_has_nothing_to_tell(app):
    result = app.AsyncResult("nobody-knows")
    assert (result.state, result.status, result.ready(), result.exists()) == (states.PENDING,) * 2 + (False, False)
    assert (result.result, result.traceback, result.children, result.date_done) == (None, None, None, None)


def test_a_success_has_a_value_and_a_time(app, finish):
    result = finish(app.AsyncResult("a"), {"n": 1})
    assert result.get(timeout=BOUND) == result.result == result.info == {"n": 1}
    assert result.successful()
    assert result.ready()
    assert result.exists()
    assert not result.failed()
    assert result.date_done.tzinfo is not None
    assert datetime.datetime.now(datetime.UTC) - result.date_done < datetime.timedelta(minutes=1)


def test_get_waits_until_the_record_is_stored(app, finish_later):
    result = app.AsyncResult("a")
    begun = finish_later(("a", 42))
    assert result.get(timeout=BOUND, interval=0.01, on_interval=begun.set) == 42


def test_get_gives_up_after_its_timeout(app):
    with pytest.raises(ResultTimeoutError):
        app.AsyncResult("a").get(timeout=0.05)


def test_a_timeout_of_zero_looks_once(app, finish):
    with pytest.raises(ResultTimeoutError):
        app.AsyncResult("a").get(timeout=0)
    assert finish(app.AsyncResult("b"), 1).get(timeout=0) == 1


def test_a_failure_is_raised_where_it_is_awaited(app, finish):
    result = finish(app.AsyncResult("a"), KeyError("missing"), states.FAILURE, traceback="File tasks.py")
    with pytest.raises(KeyError, match="missing"):
        result.get(timeout=BOUND)
    with pytest.raises(KeyError):
        result.maybe_throw()
    assert isinstance(result.get(propagate=False), KeyError)
    assert result.failed()
    assert result.traceback == "File tasks.py"


def test_the_failure_of_a_parent_is_raised_first(app, finish):
    first = finish(app.AsyncResult("first"), ValueError("first"), states.FAILURE)
    last = app.AsyncResult("last", parent=app.AsyncResult("middle", parent=first))
    with pytest.raises(ValueError, match="first"):
        last.get(timeout=BOUND)
    with pytest.raises(ResultTimeoutError):
        last.get(timeout=0.05, follow_parents=False)


def test_the_failure_of_a_parent_ends_the_wait_whatever_becomes_of_the_rest(app, finish_later):
    result = app.AsyncResult("last", parent=app.GroupResult("header", three(app)))
    begun = finish_later(("a", 1), ("c", ValueError("c"), states.FAILURE))
    with pytest.raises(ValueError, match="c"):
        result.get(timeout=BOUND, interval=0.01, on_interval=begun.set)
    assert result.state == states.PENDING


def test_of_a_chord_known_to_have_failed_get_raises_the_error_of_its_member(app, finish):
    result = finish(app.AsyncResult("body", parent=app.GroupResult("header", three(app))), ChordError("b"), "FAILURE")
    finish("b", ValueError("b"), states.FAILURE)
    assert isinstance(result.result, ChordError)
    for wait in (result.get, app.ResultSet([result]).join, lambda: asyncio.run(result.aget())):
        with pytest.raises(ValueError, match="b"):
            wait()
    for wait in (result.maybe_throw, app.AsyncResult("body").get, app.ResultSet([result]).get):
        with pytest.raises(ChordError):
            wait()


def test_an_ignored_result_is_none_at_once(app):
    @app.task(ignore_result=True)
    def forgetful():
        return 1

    result = forgetful.delay()
    assert result.ignored
    assert result.get() is None


def test_callbacks_get_id_and_value(app, finish):
    seen = []
    finish(app.AsyncResult("a"), 3).get(timeout=BOUND, callback=lambda *got: seen.append(got))
    assert seen == [("a", 3)]


def test_intermediate_states_are_told_to_on_message(app, finish):
    seen = []
    finish(app.AsyncResult("a"), {"percent": 10}, "PROGRESS")

    def told(meta):
        seen.append(meta["status"])
        if meta["status"] == "PROGRESS":
            finish("a", "done")

    assert app.AsyncResult("a").get(timeout=BOUND, on_message=told) == "done"
    assert seen[0] == "PROGRESS"
    assert seen[-1] == states.SUCCESS


def test_waiting_inside_a_task_is_refused_unless_allowed(app, finish):
    result = finish(app.AsyncResult("a"), 1)
    with denied_join_result():
        with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task!"):
            result.get()
        with pytest.raises(RuntimeError):
            app.ResultSet([result]).get()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1
        with pytest.raises(RuntimeError):
            result.get()
    assert result.get() == 1


def test_then_is_called_once_the_result_is_known(app, finish):
    seen, result = [], app.AsyncResult("a")
    assert result.then(seen.append) is result
    assert not seen
    finish(result, 1).get(timeout=BOUND)
    result.then(seen.append)
    assert seen == [result, result]


def test_an_error_in_a_then_callback_goes_to_on_error(app, finish):
    seen = []
    finish(app.AsyncResult("a"), 1).then(lambda _: 1 / 0, on_error=seen.append).get(timeout=BOUND)
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_a_final_record_is_read_once(app, finish):
    result = finish(app.AsyncResult("a"), 1)
    assert result.get(timeout=BOUND) == 1
    app.backend.forget("a")
    assert result.get() == 1


def test_forget_deletes_the_record_and_those_of_parents(app, finish):
    parent = finish(app.AsyncResult("p"), 1)
    result = finish(app.AsyncResult("a", parent=parent), 2)
    result.forget()
    assert (app.AsyncResult("a").state, app.AsyncResult("p").state) == (states.PENDING, states.PENDING)
    assert result.state == states.PENDING


def test_results_are_equal_by_id_and_to_it(app):
    one, same, other = app.AsyncResult("a"), AsyncResult("a", app=app), app.AsyncResult("b")
    assert one == same == "a"
    assert one != other
    assert len({one, same, other}) == 2
    assert (str(one), repr(one)) == ("a", "<AsyncResult: a>")


def test_results_survive_copy_and_pickle(app):
    parent = app.AsyncResult("p")
    result = app.AsyncResult("a", parent=parent, task_name="tasks.add")
    for again in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert (again, again.parent, again.name) == (result, parent, "tasks.add")
    assert b"celery.result" in pickle.dumps(result)
    assert pickle.loads(pickle.dumps(app.GroupResult("g", [result]))) == GroupResult("g", [result])
    assert pickle.loads(pickle.dumps(app.ResultSet([result]))) == ResultSet([result])


def test_a_result_travels_as_a_tuple_and_comes_back(app):
    result = app.AsyncResult("a", parent=app.AsyncResult("p"))
    assert result.as_tuple() == (("a", (("p", None), None)), None)
    assert result.as_list() == ["a", "p"]
    again = result_from_tuple([["a", [["p", None], None]], None], app)
    assert (again, again.parent) == (result, result.parent)
    assert result_from_tuple(result) is result
    with pytest.raises(ValueError, match="result tuple"):
        result_from_tuple([1, 2, 3], app)


def test_extended_records_tell_about_the_run(tmp_path):
    with Celery("ext", broker="memory://", backend=f"sqlite:///{tmp_path}/r.sqlite", result_extended=True) as app:
        result = app.AsyncResult("a")
        assert (result.name, result.args, result.retries, result.queue) == (None,) * 4

        @app.task(store_eager_result=True)
        def add(x, y):
            return x + y

        done = app.AsyncResult(add.apply((1,), {"y": 2}, task_id="b").id)
        assert (done.name, done.args, done.kwargs, done.retries) == (add.name, [1], {"y": 2}, 0)


def test_remote_tracebacks_are_raised_with_the_error(app, finish):
    def broken_function_of_the_task():
        raise ValueError("far away")

    try:
        broken_function_of_the_task()
    except ValueError as exc:
        finish("a", exc, states.FAILURE, traceback="".join(traceback.format_exception(exc)))
    app.conf.task_remote_tracebacks = True
    with pytest.raises(ValueError, match="far away") as caught:
        app.AsyncResult("a").get(timeout=BOUND)
    assert "broken_function_of_the_task" in [frame.name for frame in traceback.extract_tb(caught.tb)]


def test_reading_results_that_eager_mode_does_not_store_warns(app):
    app.conf.task_always_eager = True
    with pytest.warns(RuntimeWarning, match="task_store_eager_result"):
        assert app.AsyncResult("a").state == states.PENDING


def test_revoking_tells_all_workers(app):
    seen = []

    class Control:
        def __init__(self, app): ...

        def revoke(self, ids, **options):
            seen.append((ids, options["terminate"], options["signal"], options["reply"]))

        def revoke_by_stamped_headers(self, headers, **options):
            seen.append((headers, options["terminate"], options["signal"], options["reply"]))

    with Celery("controlled", broker="memory://", control=Control) as controlled:
        a, b = controlled.AsyncResult("a"), controlled.AsyncResult("b")
        a.revoke()
        asyncio.run(a.arevoke(terminate=True, signal="KILL"))
        controlled.ResultSet([a, b]).revoke(wait=True)
        a.revoke_by_stamped_headers({"team": "red"})
    assert seen == [
        ("a", False, None, False),
        ("a", True, "KILL", False),
        (["a", "b"], False, None, True),
        ({"team": "red"}, False, None, False),
    ]


# -- the tasks that a task sent


@pytest.fixture
def family(app, finish):
    """a sent b and c, c sent d; all are done."""

    class Sent:
        children: list

        def get(self, key):
            return None

    def store(name, *children):
        request = Sent()
        request.children = [app.AsyncResult(child) for child in children]
        finish(name, name.upper(), request=request)

    for members in (("a", "b", "c"), ("b",), ("c", "d"), ("d",)):
        store(*members)
    return app.AsyncResult("a")


def test_all_that_came_of_a_task_can_be_collected(family):
    assert [(result.id, value) for result, value in family.collect()] == [(name, name.upper()) for name in "abcd"]
    assert family.get_leaf() == "D"
    assert [child.id for child in family.children] == ["b", "c"]


def test_who_sent_whom_is_a_graph(family):
    assert {node.id: {child.id for child in children} for node, children in family.graph.items()} == {
        "a": {"b", "c"}, "b": set(), "c": {"d"}, "d": set()
    }  # fmt: skip


def test_what_an_unfinished_task_sends_is_not_known(app):
    with pytest.raises(IncompleteStream):
        list(app.AsyncResult("a").iterdeps())
    assert list(app.AsyncResult("a").iterdeps(intermediate=True)) == [(None, app.AsyncResult("a"))]


# -- many tasks


@pytest.mark.parametrize("wait", ["get", "join", "join_native"])
def test_values_come_in_the_order_of_the_set(app, finish, wait):
    results = three(app)
    for result in reversed(results):
        finish(result, result.id * 2)
    assert getattr(app.ResultSet(results), wait)(timeout=BOUND) == ["aa", "bb", "cc"]


@pytest.mark.parametrize("wait", ["get", "join", "join_native"])
def test_a_set_raises_the_failure_of_a_member(app, finish, wait):
    results = three(app)
    for result in results[:2]:
        finish(result, 1)
    finish(results[2], ValueError("third"), states.FAILURE)
    with pytest.raises(ValueError, match="third"):
        getattr(app.ResultSet(results), wait)(timeout=BOUND)
    values = getattr(app.ResultSet(three(app)), wait)(timeout=BOUND, propagate=False)
    assert values[:2] == [1, 1]
    assert isinstance(values[2], ValueError)


@pytest.mark.parametrize("wait", ["get", "join", "join_native"])
def test_a_set_gives_up_after_its_timeout(app, finish, wait):
    finish("a", 1)
    with pytest.raises(ResultTimeoutError):
        getattr(app.ResultSet(three(app)), wait)(timeout=0.05)


def test_a_callback_takes_the_values_instead(app, finish):
    for name in "abc":
        finish(name, name)
    seen = []
    results = app.ResultSet(three(app))
    assert results.join(timeout=BOUND, callback=lambda *got: seen.append(got)) == []
    assert results.join_native(timeout=BOUND, callback=lambda *got: seen.append(got)) is None
    assert sorted(seen) == sorted([(name, name) for name in "abc"] * 2)


def test_join_cannot_tell_of_messages(app):
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        app.ResultSet(three(app)).join(on_message=print)


def test_groups_inside_a_group_give_lists(app, finish):
    for name in "abc":
        finish(name, name)
    inner = app.GroupResult("inner", [app.AsyncResult("b"), app.AsyncResult("c")])
    outer = app.GroupResult("outer", [app.AsyncResult("a"), inner])
    assert outer.join(timeout=BOUND) == outer.join_native(timeout=BOUND) == ["a", ["b", "c"]]


def test_a_set_tells_how_far_it_is(app, finish):
    results = app.ResultSet(three(app))
    assert (results.waiting(), results.ready(), results.completed_count()) == (True, False, 0)
    finish("a", 1)
    finish("b", ValueError("b"), states.FAILURE)
    assert (results.completed_count(), results.failed(), results.ready()) == (1, True, False)
    finish("c", 1)
    assert (results.waiting(), results.ready(), results.successful()) == (False, True, False)
    with pytest.raises(ValueError, match="b"):
        results.maybe_throw()


def test_then_of_a_set_waits_for_the_last_one(app, finish):
    seen, results = [], app.ResultSet(three(app))
    results.then(seen.append)
    for name in "abc":
        assert not seen
        finish(name, 1)
        app.AsyncResult(name)
        next(result for result in results if result == name).get(timeout=BOUND)
    assert seen == [results]
    app.ResultSet([], app=app).then(seen.append)
    assert len(seen) == 2


def test_a_set_is_a_collection_of_results(app):
    a, b, c = three(app)
    results = app.ResultSet([a])
    results.add(b)
    results.add(b)
    results.update([a, c])
    assert list(results) == [a, b, c]
    assert (len(results), results[1], repr(results)) == (3, b, "<ResultSet: [a, b, c]>")
    results.remove("b")
    results.discard("b")
    with pytest.raises(KeyError):
        results.remove("b")
    assert results == ResultSet([a, c])
    results.clear()
    assert not len(results)
    with pytest.raises(TypeError):
        hash(results)


def test_forgetting_a_set_forgets_its_members(app, finish):
    for name in "abc":
        finish(name, 1)
    app.ResultSet(three(app)).forget()
    assert all(result.state == states.PENDING for result in three(app))


def test_a_group_can_be_saved_and_restored(app):
    group = app.GroupResult("g", three(app))
    assert app.GroupResult.restore("g") is None
    group.save()
    assert app.GroupResult.restore("g") == group
    assert GroupResult.restore("g", app=app) == group == "g"
    group.delete()
    assert GroupResult.restore("g", backend=app.backend) is None


def test_a_group_travels_as_a_tuple_and_comes_back(app):
    group = app.GroupResult("g", [app.AsyncResult("a")], parent=app.AsyncResult("p"))
    assert group.as_tuple() == (("g", (("p", None), None)), [(("a", None), None)])
    assert result_from_tuple(group.as_tuple(), app) == group
    assert group.children == group.results
    assert repr(group) == "<GroupResult: g [a]>"
    assert group != app.GroupResult("g", [app.AsyncResult("a")])


def test_a_group_is_true_by_its_id_or_its_members(app):
    assert app.GroupResult("g", [])
    assert app.GroupResult(None, [app.AsyncResult("a")])
    assert not app.GroupResult(None, [])


# -- coroutines


def test_aget_waits_without_blocking_the_loop(app, finish_later):
    async def scenario():
        begun = finish_later(("a", 5))
        waiting = asyncio.ensure_future(app.AsyncResult("a").aget(timeout=BOUND))
        await asyncio.sleep(0)
        begun.set()
        return await waiting

    assert asyncio.run(scenario()) == 5


def test_aget_raises_what_get_raises(app, finish):
    finish("a", ValueError("a"), states.FAILURE)

    async def scenario():
        with pytest.raises(ValueError, match="a"):
            await app.AsyncResult("a").aget(timeout=BOUND)
        assert isinstance(await app.AsyncResult("a").aget(timeout=BOUND, propagate=False), ValueError)
        with pytest.raises(ValueError, match="a"):
            await app.AsyncResult("later", parent=app.AsyncResult("a")).aget(timeout=BOUND)
        for timeout in (0, 0.05):
            with pytest.raises(ResultTimeoutError):
                await app.AsyncResult("unknown").aget(timeout=timeout)
        with denied_join_result(), pytest.raises(RuntimeError):
            await app.AsyncResult("a").aget()

    asyncio.run(scenario())


def test_coroutines_ask_for_states_and_forget(app, finish):
    finish("a", 1)
    finish("b", ValueError(), states.FAILURE)

    async def scenario():
        good, bad = app.AsyncResult("a"), app.AsyncResult("b")
        assert await good.astate() == states.SUCCESS
        assert (await good.aready(), await good.asuccessful(), await good.afailed()) == (True, True, False)
        assert await bad.afailed()
        assert await app.ResultSet([good, bad]).aready()
        await good.aforget()
        assert await app.AsyncResult("a").astate() == states.PENDING

    asyncio.run(scenario())


def test_results_are_iterated_as_they_come(app, finish):
    async def scenario():
        results = app.ResultSet(three(app))
        order = []
        finish("b", 1)
        async for result in results:
            order.append(result.id)
            finish({"b": "c", "c": "a", "a": "a"}[result.id], 1)
        return order

    assert asyncio.run(asyncio.wait_for(scenario(), BOUND)) == ["b", "c", "a"]


def test_aget_of_a_set_gives_values_in_order(app, finish):
    for name in "cba":
        finish(name, name)

    async def scenario():
        inner = app.GroupResult("inner", [app.AsyncResult("c")])
        return await app.ResultSet([*three(app), inner]).aget(timeout=BOUND)

    assert asyncio.run(scenario()) == ["a", "b", "c", ["c"]]


# -- tasks that ran in place


def test_an_eager_result_is_ready_and_has_its_value(app):
    result = EagerResult("a", 3, states.SUCCESS, name="tasks.add")
    assert (result.get(), result.wait(timeout=1), result.result, result.state) == (3, 3, 3, states.SUCCESS)
    assert result.ready()
    assert result.successful()
    assert result.name == "tasks.add"
    assert not result.supports_native_join
    assert asyncio.run(result.aget()) == 3
    assert copy.copy(result).get() == pickle.loads(pickle.dumps(result)).get() == 3
    result.forget()
    assert result.get() == 3
    assert repr(result) == "<EagerResult: a>"


def test_an_eager_failure_is_raised(app):
    result = EagerResult("a", ValueError("no"), states.FAILURE, "trace")
    with pytest.raises(ValueError, match="no"):
        result.get()
    assert isinstance(result.get(propagate=False), ValueError)
    assert result.traceback == "trace"


def test_an_eager_result_can_be_revoked_all_the_same(app):
    result = EagerResult("a", 1, states.SUCCESS)
    result.revoke()
    assert result.state == states.REVOKED
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get()


def test_eager_results_can_be_members_of_a_set(app, finish):
    finish("a", 1)
    eager = EagerResult("e", 2, states.SUCCESS)
    assert app.ResultSet([eager, app.AsyncResult("a")]).get(timeout=BOUND) == [2, 1]
    assert app.ResultSet([app.AsyncResult("a"), eager]).get(timeout=BOUND) == [1, 2]


# -- no results at all


def test_without_a_backend_reading_says_what_to_configure():
    with Celery("none", broker="memory://", set_as_current=False) as app:
        for ask in (lambda r: r.state, lambda r: r.get(), lambda r: asyncio.run(r.aget())):
            with pytest.raises(NotImplementedError, match="No result backend is configured"):
                ask(app.AsyncResult("a"))


def test_results_that_celery_5_7_pickled_are_read(app):
    # pickle.dumps of app.AsyncResult("a", parent=None) there, protocol 0, backend database.
    theirs = (
        b"ccelery.app.base\n_unpickle_appattr\np0\n(VAsyncResult\np1\n(Va\np2\nccelery.backends.base\nunpickle_backend\n"
        b"p3\n(ccelery.backends.base\nBaseBackend\np4\n(t(dp5\nVexpires\np6\nI86400\nstp7\nRp8\nNNNtp9\ntp10\nRp11\n."
    )
    result = pickle.loads(theirs)
    assert (result, result.backend) == (app.AsyncResult("a"), app.backend)
