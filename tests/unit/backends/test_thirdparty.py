"""What backends of third parties find on themselves, and are handed (API-064, MOD-0439, MOD-0491..0511)."""

import pytest

from celery import Celery, states
from celery.backends import base
from celery.backends.database import DatabaseBackend
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import TimeoutError as NotInTime


class Shelf(base.KeyValueStoreBackend):
    """Four verbs, and what they were called with."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value):
        self.values[key] = value

    def delete(self, key):
        self.values.pop(key, None)


class Memcached(Shelf):
    """One whose library answers with what there is, by key."""

    key_t = str

    def mget(self, keys):
        return {key: self.values[key] for key in keys if key in self.values}


@pytest.fixture
def app():
    with Celery(broker="memory://", set_as_current=False) as app:
        yield app


def test_keys_are_bytes_and_values_text_where_the_serializer_makes_text(app):
    shelf = Shelf(app)
    shelf.store_result("i", 3, states.SUCCESS)
    ((key, value),) = shelf.values.items()
    assert (key, type(value)) == (b"celery-task-meta-i", str)
    pickling = Shelf(app, serializer="pickle")
    pickling.store_result("i", 3, states.SUCCESS)
    assert isinstance(*pickling.values.values(), bytes)
    assert shelf.get_result("i") == pickling.get_result("i") == 3


def double(key):
    return f"{key}{key}"


@pytest.mark.parametrize(
    ("form", "key"), [(str, "celery-task-meta-i.j"), (double, "celery-task-meta-celery-task-meta-ii.j.j")]
)
def test_a_store_says_what_its_keys_are_made_of(app, form, key):
    assert type("Own", (Shelf,), {"key_t": form})(app).get_key_for_task("i", ".j") == key


def test_every_key_begins_with_what_the_options_say(app):
    app.conf.result_backend_transport_options = {"global_keyprefix": "mine"}
    shelf = Shelf(app)
    assert shelf.get_key_for_task("i") == b"mine_celery-task-meta-i"
    assert shelf.get_key_for_group("g") == b"mine_celery-taskset-meta-g"
    assert shelf.get_key_for_chord("g", ".t") == b"mine_chord-unlock-g.t"


@pytest.mark.parametrize("kind", [Shelf, Memcached])
def test_many_results_are_waited_for_by_looking(app, kind):
    shelf = kind(app)
    for name in "ab":
        shelf.store_result(name, name.upper(), states.SUCCESS)
    told, pauses = [], []
    found = shelf.get_many(
        ["a", "b", "c", "a"], 0.01, interval=0.001, on_message=told.append, on_interval=lambda: pauses.append(1)
    )
    assert [(task_id, meta["result"]) for task_id, meta in (next(found), next(found))] == [("a", "A"), ("b", "B")]
    with pytest.raises(NotInTime, match=r"0\.01"):
        next(found)
    assert [meta["result"] for meta in told] == ["A", "B"]
    assert pauses
    shelf.store_result("c", 1, states.STARTED)
    assert list(shelf.get_many(["c"], interval=0, max_iterations=3)) == []
    assert [task_id for task_id, _ in shelf.get_many(["c"], READY_STATES={states.STARTED})] == ["c"]
    assert list(shelf.get_many([])) == []


def test_pending_results_are_given_back(app):
    shelf, result = Shelf(app), app.AsyncResult("i")
    assert shelf.add_pending_result(result, weak=True) is shelf.remove_pending_result(result) is result


@pytest.mark.parametrize(
    ("kind", "announces"), [(Shelf, False), (DatabaseBackend, False), (RedisBackend, True), (RPCBackend, True)]
)
def test_a_backend_says_whether_results_are_announced(kind, announces):
    assert kind.is_async is announces
    assert issubclass(kind, base.SyncBackendMixin)


def test_there_is_a_policy_to_try_again_by(app):
    assert Shelf(app).retry_policy["max_retries"] == 20
    assert type("Own", (Shelf,), {"retry_policy": {"max_retries": 1}})(app).retry_policy == {"max_retries": 1}


def test_an_id_that_is_no_text_is_refused():
    with Celery(backend="redis://localhost:1", set_as_current=False) as app:
        with pytest.raises(TypeError, match="The id of a task or group must be text, not 5"):
            _ = app.AsyncResult(5).state
