"""Names of `celery.backends.base` that backends of others derive from, and call (MOD-0423..0525)."""

from decimal import Decimal

import pytest

from celery import Celery, states
from celery.app.context import Context
from celery.backends import base
from celery.exceptions import TimeoutError as NotInTime
from celery.result import AsyncResult, ResultSet


class Shelf(base.BaseDictBackend):
    """As django-celery-results: columns of text, an encoding beside them; stores when told, and blockingly."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows = {}

    def _store_result(self, task_id, result, status, traceback=None, request=None):
        _, encoding, content = self._encode(result)
        self.rows[task_id] = (encoding, content, status, traceback)

    def _get_task_meta_for(self, task_id):
        if task_id not in self.rows:
            return {"task_id": task_id, "status": states.PENDING, "result": None}
        _, content, status, traceback = self.rows[task_id]
        meta = {"task_id": task_id, "status": status, "result": self.decode(content), "traceback": traceback}
        return self.meta_from_decoded(meta)


@pytest.fixture
def app():
    with Celery(broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def shelf(app):
    return Shelf(app)


def test_columns_hold_text_where_the_serializer_makes_text(shelf, app):
    shelf.store_result("i", {"a": 1}, states.SUCCESS)
    assert shelf.rows["i"] == ("utf-8", '{"a": 1}', states.SUCCESS, None)
    assert shelf.get_result("i") == {"a": 1}
    pickled = Shelf(app, serializer="pickle", accept=["pickle"])
    assert isinstance(pickled._encode({1})[2], bytes)


def test_a_result_is_stored_as_the_tuple_that_it_travels_as(shelf, app):
    shelf.store_result("i", AsyncResult("other", app=app), states.SUCCESS)
    assert shelf.get_result("i") == [["other", None], None]
    result = AsyncResult("other", app=app)
    assert Shelf(app, serializer="pickle").prepare_value(result) is result
    assert shelf.prepare_value(Decimal(1)) == Decimal(1)


def test_what_a_backend_makes_of_values_is_made_of_plain_ones_too(app):
    class Doubles(Shelf):
        def prepare_value(self, result):
            return 2 * result

    for request in (None, Context(id="i")):
        write = Doubles(app).prepare_write("i", 21, states.SUCCESS, None, request)
        assert Shelf(app).decode(write.payload)["result"] == 42


def test_the_exception_that_is_being_handled_can_be_stored(shelf):
    try:
        raise KeyError("nothing")
    except KeyError:
        einfo = shelf.fail_from_current_stack("i")
    meta = shelf.get_task_meta("i")
    assert (meta["status"], type(meta["result"]), meta["traceback"]) == (states.FAILURE, KeyError, einfo.traceback)
    assert "test_the_exception_that_is_being_handled" in einfo.traceback


def test_an_exception_that_is_given_can_be_stored_too(shelf):
    shelf.fail_from_current_stack("i", ValueError("given"))
    assert isinstance(shelf.get_result("i"), ValueError)
    with pytest.raises(RuntimeError, match="there is none"):
        shelf.fail_from_current_stack("i")


def test_persistence_is_what_is_asked_for_or_configured_or_usual(shelf, app):
    assert shelf.prepare_persistent() is True
    assert shelf.prepare_persistent(False) is False
    app.conf.result_persistent = False
    assert shelf.prepare_persistent() is False


def test_only_stores_that_can_compress_have_a_compression(shelf):
    class Compressing(Shelf):
        supports_result_compression = True

    assert shelf.prepare_compression("gzip") is None
    assert Compressing(shelf.app).prepare_compression("gzip") == "application/x-gzip"
    packed = base.compress_payload(b"payload", "gzip")
    assert packed.startswith(b"\x00celery-compressed\x00")
    assert base.decompress_payload(packed) == base.decompress_payload(b"payload") == b"payload"


def test_waits_may_be_handed_a_result(shelf, app):
    first, second = (AsyncResult(name, backend=shelf, app=app) for name in ("a", "b"))
    shelf.store_result("a", 1, states.SUCCESS)
    assert shelf.wait_for_pending(first, timeout=5) == 1
    with pytest.raises(NotInTime):
        shelf.wait_for_pending(second, timeout=0.01)
    app.backend.store_result("a", 1, states.SUCCESS)
    both = ResultSet([AsyncResult("a", app=app)], app=app)
    assert [(name, meta["result"]) for name, meta in app.backend.iter_native(both, timeout=5)] == [("a", 1)]


def test_a_backend_may_ask_for_the_current_task():
    assert base.get_current_task() is None


def test_every_way_to_derive_a_backend_of_ones_own_is_open(app):
    for bases in (
        (base.Backend, base.SyncBackendMixin),
        (base.SyncBackendMixin, base.Backend),
        (base.BaseBackend,),
        (base.BaseKeyValueStoreBackend, base.SyncBackendMixin),
        (base.KeyValueStoreBackend,),
    ):
        assert not type("Own", bases, {})(app).async_writer
    assert isinstance(base.DisabledBackend(app), base.BaseBackend)
