"""Exceptions keep their documented text, attributes and family, and travel (API-071 to API-073)."""

import pickle
import subprocess
import sys
from datetime import datetime

import pytest

from celery import exceptions
from celery.exceptions import (
    BackendGetMetaError,
    BackendStoreError,
    CeleryError,
    Ignore,
    MaxRetriesExceededError,
    NotRegistered,
    QueueNotFound,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskError,
    TaskPredicate,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
    reraise,
)


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (Retry("said so", ValueError("x"), 3), "said so"),
        (Retry(exc=ValueError("x"), when=10), "Retry in 10s: ValueError('x')"),
        (Retry(exc="KeyError('k')", when=3.5), "Retry in 3.5s: KeyError('k')"),
        (Retry(exc=ValueError("x"), when=datetime(2020, 1, 1)), "Retry at 2020-01-01 00:00:00: ValueError('x')"),
        (Retry(when=3), "Retry in 3s"),
    ],
)
def test_a_retry_says_when_and_why(retry, text):
    assert str(retry) == text
    assert str(pickle.loads(pickle.dumps(retry))) == text


def test_a_retry_given_a_described_error_has_no_exception_object():
    retry = Retry(exc="KeyError('k')")
    assert retry.exc is None
    assert retry.excs == "KeyError('k')"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Reject("full", requeue=True), "reject requeue=True: full"),
        (Ignore(), "Ignore()"),
        (MaxRetriesExceededError("no", task_args=(1,), task_kwargs={"a": 2}), "MaxRetriesExceededError('no')"),
        (BackendGetMetaError("m", task_id="t"), "BackendGetMetaError('m') task_id:t"),
        (BackendStoreError("m", state="S", task_id="t"), "BackendStoreError('m') state:S task_id:t"),
        (TimeLimitExceeded(3), "TimeLimitExceeded(3)"),
        (SoftTimeLimitExceeded(3, 4), "SoftTimeLimitExceeded(3, 4)"),
        (WorkerLostError("exit 9"), "WorkerLostError('exit 9')"),
        (Terminated(9), "Terminated(9)"),
        (QueueNotFound("q"), "QueueNotFound('q')"),
    ],
)
def test_an_error_survives_pickling_with_its_attributes(error, shown):
    back = pickle.loads(pickle.dumps(error))
    assert repr(error) == repr(back) == shown
    assert type(back) is type(error)
    assert back.args == error.args
    assert vars(back) == vars(error)


def test_time_limits_show_their_class_as_text():
    assert str(TimeLimitExceeded(3)) == "TimeLimitExceeded(3,)"
    assert str(SoftTimeLimitExceeded()) == "SoftTimeLimitExceeded()"


def test_an_unregistered_task_is_named():
    assert "'proj.add'" in repr(NotRegistered("proj.add"))


def test_the_families_are_those_users_catch():
    assert issubclass(Reject, TaskPredicate)
    assert issubclass(TaskPredicate, CeleryError)
    assert issubclass(NotRegistered, KeyError)
    assert issubclass(NotRegistered, TaskError)
    assert issubclass(WorkerTerminate, SystemExit)
    assert issubclass(WorkerShutdown, SystemExit)
    assert exceptions.RetryTaskError is Retry
    assert exceptions.SystemTerminate is WorkerTerminate


def test_reraise_keeps_the_given_traceback():
    try:
        raise ValueError("first")
    except ValueError as exc:
        caught, where = exc, exc.__traceback__
    with pytest.raises(ValueError, match="first") as info:
        reraise(type(caught), caught, where)
    assert info.tb.tb_next.tb_next.tb_lineno == where.tb_lineno


@pytest.mark.parametrize("name", ["OperationalError", "EncodeError", "DecodeError", "ContentDisallowed"])
def test_what_kombu_defines_is_caught_under_either_name(name):
    kombu_exceptions = pytest.importorskip("kombu.exceptions")
    ours = getattr(exceptions, name)
    with pytest.raises(getattr(kombu_exceptions, name)):
        raise ours("down")


def test_a_command_error_carries_its_exit_code():
    error = exceptions.CeleryCommandException("bad", exit_code=3)
    back = pickle.loads(pickle.dumps(error))
    assert (back.message, back.exit_code) == ("bad", 3)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchError"):
        _ = exceptions.NoSuchError


def test_importing_the_leaves_loads_no_third_party_package():
    code = (
        "import sys; before = set(sys.modules)\n"
        "import celery.exceptions, celery.states, celery.local, celery.signals\n"
        "heavy = {'kombu', 'click', 'asyncio', 'inspect', 'logging', 'traceback', 'redis', 'dataclasses'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert shown.stdout.strip() == "[]"
