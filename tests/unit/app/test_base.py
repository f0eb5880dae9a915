"""The application and the face of the package (API-001..020)."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading

import pytest

import celery
from celery import Celery, _state, current_app, current_task, exceptions, shared_task, signals
from celery.app import app_or_default, pop_current_task, push_current_task
from celery.exceptions import (
    AlwaysEagerIgnored,
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    NotRegistered,
    QueueNotFound,
)
from celery.result import AsyncResult, GroupResult

BUILTIN = {
    "celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.chord", "celery.chord_unlock",
    "celery.chunks", "celery.group", "celery.map", "celery.starmap",
}  # fmt: skip


@shared_task
def shared_add(x, y):
    return x + y


@shared_task(name="shared.bound", bind=True)
def shared_bound(self):
    return self.name, self.app.main


@pytest.fixture
def app():
    with Celery("w", broker="memory://") as made:
        yield made


@pytest.fixture
def sent():
    messages = []

    def keep(headers, body, routing_key, **_):
        messages.append({**headers, "body": body, "routing_key": routing_key})

    signals.before_task_publish.connect(keep)
    yield messages
    signals.before_task_publish.disconnect(keep)


# -- the package


@pytest.mark.parametrize("name", celery.__all__)
def test_every_public_name_is_there(name):
    assert name in dir(celery)
    assert getattr(celery, name) is not None


def test_the_package_says_which_celery_it_is_compatible_with():
    assert celery.__version__ == "5.7.0"
    assert celery.VERSION == celery.version_info == (5, 7, 0, "", "")
    assert celery.VERSION_BANNER == "5.7.0 (collider)"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nope"):
        celery.nope  # noqa: B018 - the access is the test


@pytest.mark.parametrize(
    ("argv", "patched"),
    [
        (["worker", "-P", "green"], True),
        (["worker", "--pool=green"], True),
        (["worker", "--pool", "prefork"], False),
        (["worker"], False),
    ],
)
def test_a_green_pool_on_the_command_line_patches_early(argv, patched):
    done = []
    celery.maybe_patch_concurrency(argv, patches={"green": lambda: done.append(1)})
    assert bool(done) == patched


# -- which application is current


def test_the_latest_application_is_current_in_its_thread(app):
    assert current_app._get_current_object() is app
    assert app_or_default() is app
    other = Celery("other", set_as_current=False)
    assert app_or_default(other) is other
    assert current_app.main == "w"


def test_other_threads_have_the_default_application():
    # In a process of its own: tools for tests make another one the default.
    program = """
import threading
from celery import Celery, current_app
from celery.app import default_app
app = Celery("w")
thread = threading.Thread(target=lambda: print(current_app.main, default_app.main))
thread.start()
thread.join()
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "default default\n"


def test_a_shared_task_that_a_thread_sends_to_the_default_application_is_warned_of(tmp_path):
    """Without settings its broker is a file that no worker of the project looks at. One that was chosen is meant."""
    program = """
import threading
from celery import Celery, shared_task
app = Celery("shop", broker="memory://")
work = shared_task(lambda: None, name="work")
for number in range(2):
    thread = threading.Thread(target=lambda: work.delay())
    thread.start()
    thread.join()
    app.set_default()
meant = Celery("meant")
meant.set_default()
meant.task(lambda: None, name="own").delay()
"""
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CELERY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stderr.count("set_default() on the application that is meant ('shop')") == 1
    assert str(tmp_path) in said.stderr


def test_the_current_task_is_the_one_that_runs(app):
    @app.task
    def running():
        return current_task.name

    assert not current_task
    assert running.apply().get() == running.name
    push_current_task(running)
    assert app.current_task is app.tasks[running.name]
    pop_current_task()
    assert app.current_task is None


# -- tasks


def test_every_application_has_the_builtin_tasks(app):
    assert app.tasks.keys() >= BUILTIN


def test_mapping_tasks_call_the_body_for_each_item(app):
    @app.task
    def add(x, y=1):
        return x + y

    assert app.tasks["celery.map"].apply((add.s(), [1, 2])).get() == [2, 3]
    assert app.tasks["celery.starmap"].apply((dict(add.s()), [[1, 2], (3, 4)])).get() == [3, 7]
    assert list(app.tasks["celery.accumulate"](1, 2)) == [1, 2]
    assert app.tasks["celery.accumulate"](1, 2, index=1) == 2
    app.tasks["celery.backend_cleanup"]()
    with pytest.raises(NotImplementedError, match="first step"):
        app.tasks["celery.chain"]()


def test_a_task_is_made_when_it_is_first_used(app):
    @app.task
    def lazy(): ...

    assert not app.finalized
    assert app.tasks[lazy.name] is lazy._get_current_object()

    @app.task(lazy=False)
    def eager(): ...

    assert app.tasks[eager.name] is eager


def test_what_cannot_be_called_is_no_task(app):
    with pytest.raises(TypeError, match="callable"):
        app.task(1)
    with pytest.raises(TypeError, match="1 argument"):
        app.task(len, len)
    with pytest.raises(TypeError, match="callable"):
        shared_task(1)


def test_a_filter_has_the_last_word(app):
    @app.task(filter=lambda task: ("filtered", task.name), name="f")
    def filtered(): ...

    assert filtered == ("filtered", "f")


def test_the_first_of_two_tasks_of_one_name_stays(app):
    @app.task(name="twice", lazy=False, shared=False)
    def first(): ...

    with pytest.warns(DuplicateTaskNameWarning, match="'twice'"):

        @app.task(name="twice", lazy=False, shared=False)
        def second(): ...

    assert app.tasks["twice"].__wrapped__ is first.__wrapped__


def test_an_unregistered_task_is_named(app):
    with pytest.raises(NotRegistered, match="nobody"):
        app.tasks["nobody"]


def test_implicit_finalization_can_be_forbidden():
    with Celery("strict", broker="memory://", autofinalize=False) as app:

        @app.task
        def early(): ...

        with pytest.raises(RuntimeError, match="app not finalized"):
            app.tasks  # noqa: B018 - the access is the test
        app.finalize()
        assert early.name in app.tasks


def test_finalizing_is_announced_once(app):
    seen = []
    app.on_after_finalize.connect(lambda sender, **_: seen.append(sender), weak=False)
    app.finalize()
    app.finalize()
    assert seen == [app]


def test_shared_tasks_are_in_every_application(app):
    with Celery("second", broker="memory://") as second:
        assert shared_add.app is second
        assert shared_bound() == ("shared.bound", "second")
    app.set_current()
    assert shared_add.app is app
    assert shared_bound() == ("shared.bound", "w")
    assert {shared_add.name, "shared.bound"} <= app.tasks.keys() & second.tasks.keys()


def test_an_application_that_nobody_refers_to_shares_its_tasks_no_longer():
    gc.collect()
    known = set(_state._on_app_finalizers)
    first = Celery("first", broker="memory://", set_as_current=False)
    task = first.task(name="first.task")(len)
    with Celery("second", broker="memory://", set_as_current=False) as second:
        assert task.name in second.tasks
    first.close()
    del first, task
    gc.collect()
    assert set(_state._on_app_finalizers) == known
    with Celery("third", broker="memory://", set_as_current=False) as third:
        assert "first.task" not in third.tasks


def test_sharing_a_shared_task_is_refused():
    with pytest.raises(TypeError, match="shared_task"):
        shared_task(shared_add)


def test_tasks_of_one_application_are_in_others_unless_they_have_their_own(app):
    @app.task(name="theirs")
    def theirs():
        return 1

    @app.task(name="private", shared=False)
    def private(): ...

    with Celery("second", broker="memory://") as second:

        @second.task(name="theirs")
        def ours():
            return 2

        assert second.tasks["theirs"]() == 2
        assert "private" not in second.tasks
    with Celery("third", broker="memory://") as third:
        assert third.tasks["theirs"]() in (1, 2)


# -- sending by name


def test_a_task_can_be_sent_by_name(app, sent):
    result = app.send_task("elsewhere", (1,), {"y": 2}, task_id="i", queue="q", shadow="s")
    assert (result.id, type(result).__name__) == ("i", "AsyncResult")
    assert (sent[0]["task"], sent[0]["routing_key"], sent[0]["shadow"]) == ("elsewhere", "q", "s")
    assert sent[0]["body"][:2] == ([1], {"y": 2})


def test_sending_by_name_uses_what_the_task_here_says(app, sent):
    @app.task(name="here", queue="slow", expires=60, lazy=False)
    def here(): ...

    assert here.name == "here"
    app.send_task("here")
    app.send_task("here", expires=None, queue="fast")
    assert [message["routing_key"] for message in sent] == ["slow", "fast"]
    assert sent[0]["expires"]
    assert not sent[1]["expires"]


@pytest.mark.parametrize(("args", "kwargs"), [("text", None), (None, [1])])
def test_arguments_of_the_wrong_kind_are_refused(app, args, kwargs):
    with pytest.raises(TypeError):
        app.send_task("any", args, kwargs)


def test_a_queue_that_nobody_declared_is_named():
    with Celery("w", broker="memory://", task_create_missing_queues=False) as app:  # noqa: SIM117 - two steps
        with pytest.raises(QueueNotFound, match="nowhere"):
            app.send_task("any", queue="nowhere")


def test_always_eager_does_not_apply_to_names(app, sent):
    app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("any")
    assert len(sent) == 1


def test_a_task_sent_inside_a_task_knows_its_family(app, sent):
    @app.task(bind=True)
    def outer(self):
        app.send_task("inner")
        app.send_task("other", add_to_parent=False)
        return [child.id for child in self.request.children]

    children = outer.apply(task_id="outer").get()
    assert [(message["root_id"], message["parent_id"]) for message in sent] == [("outer", "outer")] * 2
    assert children == [sent[0]["id"]]


# -- results, settings, identity


def test_results_of_an_application_are_bound_to_it(app):
    assert isinstance(app.AsyncResult("a"), AsyncResult)
    assert app.AsyncResult("a").app is app
    assert isinstance(app.GroupResult("g", []), GroupResult)
    assert app.GroupResult("g", []).app is app
    assert app.ResultSet([]).app is app


def test_short_names_of_the_constructor_are_settings(tmp_path):
    app = Celery(
        "short", broker="memory://", backend=f"sqlite:///{tmp_path}/r.sqlite", include=["json"], task_acks_late=True,
        changes={"timezone": "Europe/Berlin"}, set_as_current=False,
    )  # fmt: skip
    assert app.conf.broker_url == "memory://"
    assert app.conf.result_backend.startswith("sqlite")
    assert (app.conf.include, app.conf.task_acks_late) == (["json"], True)
    assert str(app.timezone) == "Europe/Berlin"
    assert not app.uses_utc_timezone()
    assert app.now().utcoffset() is not None


def test_a_configuration_class_is_read_when_first_needed():
    class Config:
        broker_url = "memory://"
        task_default_queue = "first"

    app = Celery("configured", set_as_current=False)
    app.config_from_object(Config)
    assert app.conf.task_default_queue == "first"


def test_a_missing_environment_variable_is_named(app, monkeypatch):
    monkeypatch.delenv("NO_SUCH_CONFIG", raising=False)
    with pytest.raises(ImproperlyConfigured, match="NO_SUCH_CONFIG"):
        app.config_from_envvar("NO_SUCH_CONFIG")
    assert app.config_from_envvar("NO_SUCH_CONFIG", silent=True) is False


def test_an_unknown_time_zone_is_named():
    with pytest.raises(ImproperlyConfigured, match="timezone.*'Nowhere/Town'"):
        Celery("w", timezone="Nowhere/Town", set_as_current=False).timezone  # noqa: B018 - the access is the test


def test_an_application_pickles_by_its_settings(app):
    app.conf.task_default_queue = "kept"
    again = pickle.loads(pickle.dumps(app))
    assert (again.main, again.conf.broker_url, again.conf.task_default_queue) == ("w", "memory://", "kept")


def test_ids_differ_between_threads_and_stay_in_one(app):
    found = []
    thread = threading.Thread(target=lambda: found.append(app.thread_oid))
    thread.start()
    thread.join()
    assert app.thread_oid == app.thread_oid != found[0]
    assert app.oid == app.oid


def test_a_custom_task_class_serves_the_application():
    class Base(celery.Task):
        def greet(self):
            return self.app.main

    with Celery("w", broker="memory://", task_cls=Base) as app:

        @app.task
        def any(): ...

        assert any.greet() == "w"
        assert issubclass(app.Task, Base)


def test_programs_of_an_application_are_bound_to_it(app):
    assert app.Worker.app is app
    assert issubclass(app.Worker, app.WorkController.__mro__[1])
    assert app.WorkController.__name__ == "WorkController"


def test_the_missing_scheduler_says_what_to_do_instead(app):
    with pytest.raises(ImproperlyConfigured, match="celery call"):
        app.Beat()


def test_connections_and_producers_of_kombu_come_from_a_pool_of_the_configured_size():
    settings = {"broker_pool_limit": 1, "broker_pool_acquire_timeout": 0.05}
    with Celery("w", broker="memory://", set_as_current=False, **settings) as app:
        assert (app.pool.limit, app.producer_pool.limit) == (1, 1)
        with app.connection_or_acquire() as connection:
            assert connection.transport.driver_type == "celeriac"
            with (
                pytest.raises(exceptions.OperationalError, match="broker_pool_limit"),
                app.connection_or_acquire(),
            ):
                pytest.fail("there is only one")
        with app.connection_or_acquire() as again:
            assert again is connection
        with app.connection_or_acquire(pool=False) as other:
            assert other is not connection
            with app.producer_or_acquire() as producer:
                assert producer.connection is not connection
        with app.producer_or_acquire(producer) as given:
            assert given is producer


def test_a_closed_application_lets_its_backend_go(tmp_path):
    app = Celery("w", broker="memory://", backend=f"sqlite:///{tmp_path / 'r.sqlite'}", set_as_current=False)
    first = app.backend
    first.store_result("id", 1, "SUCCESS")
    app.close()
    assert app.backend is not first
    assert app.AsyncResult("id").get(timeout=10) == 1
    app.close()


def test_a_subclass_may_check_arguments_its_own_way():
    class Lenient(Celery):
        def type_checker(self, fun, bound=False):
            return staticmethod(lambda *args, **kwargs: None)

    for cls in (Celery, Lenient):
        with cls("w", broker="memory://", set_as_current=False) as app:
            task = app.task(name="one", shared=False)(lambda x: x)
            if cls is Lenient:
                assert task.delay(1, 2).id
            else:
                with pytest.raises(TypeError):
                    task.delay(1, 2)
