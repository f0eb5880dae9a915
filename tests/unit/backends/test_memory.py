"""What only the memory backend has."""

import os
import uuid

import pytest

from celery import Celery, states
from celery.backends.cache import CacheBackend
from celery.exceptions import ImproperlyConfigured


def make(backend, **settings):
    app = Celery("memory", broker="memory://", backend=backend, set_as_current=False)
    app.conf.update(settings)
    return app.backend


@pytest.mark.parametrize(
    ("url", "settings"), [("cache+memory://", {}), ("cache", {"cache_backend": "memory"}), ("cache", {})]
)
def test_the_ways_to_name_it(url, settings):
    backend = make(url, **settings)
    assert isinstance(backend, CacheBackend)
    backend.store_result("named", 1, states.SUCCESS)
    assert make("cache+memory://").get_result("named") == 1
    backend.forget("named")


def test_stores_of_other_names_are_apart():
    one, other = (make(f"cache+memory://{uuid.uuid4()}") for _ in range(2))
    one.store_result("id", 1, states.SUCCESS)
    assert other.get_state("id") == states.PENDING


def test_a_forked_process_has_a_copy():
    backend = make(f"cache+memory://{uuid.uuid4()}")
    backend.store_result("id", 7, states.SUCCESS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            backend.store_result("other", 1, states.SUCCESS)
            status = 0 if backend.get_task_meta("id", cache=False)["result"] == 7 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert backend.get_state("other") == states.PENDING


def test_counters_start_at_one_and_expire():
    backend = make(f"cache+memory://{uuid.uuid4()}")
    assert [backend.incr("n"), backend.incr("n")] == [1, 2]
    backend.expire("n", 0)
    assert backend.get("n") is None


def test_expired_records_are_swept():
    backend = make(f"cache+memory://{uuid.uuid4()}", result_expires=0.001)
    for number in range(10):
        backend.store_result(str(number), number, states.SUCCESS)
    while backend.get(backend.get_key_for_task("9")) is not None:
        pass
    backend.cleanup()
    assert backend.store._values == {}


def test_a_cache_server_is_refused_with_what_to_use_instead():
    with pytest.raises(ImproperlyConfigured, match=r"cache\+memory://"):
        make("cache+memcached://127.0.0.1:11211/")
