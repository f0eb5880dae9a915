"""wire.md 4.2 and API-062: exceptions as data."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import exceptions
from celery.exceptions import SecurityError
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.wire.errors import decode_exception, encode_exception
from celery.wire.serializers import dumps


class Outer:
    class Inner(Exception):
        pass


class BadValue(ValueError):
    def __init__(self, field, text):
        super().__init__(f"bad {field}")
        self.text = text


class KeepsOne(Exception):
    def __init__(self, first, second):
        super().__init__(first)


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


def stored(name, message, module):
    return {"exc_type": name, "exc_message": message, "exc_module": module}


def test_an_exception_is_its_name_arguments_and_module():
    assert encode_exception(ValueError("boom", 1)) == stored("ValueError", ["boom", 1], "builtins")
    assert encode_exception(Outer.Inner()) == stored("Outer.Inner", [], __name__)


def test_arguments_that_do_not_serialize_become_their_repr():
    encoded = encode_exception(ValueError("a", {1}, Unprintable()))
    assert encoded["exc_message"] == ["a", "{1}", "<Unprintable whose repr failed: RuntimeError>"]
    dumps(encoded)


def test_the_cause_stays_behind():
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert encode_exception(error) == stored("ValueError", ["outer"], "builtins")


def test_a_known_class_is_rebuilt_with_its_arguments():
    rebuilt = decode_exception(encode_exception(Outer.Inner(1, "two")))
    assert type(rebuilt) is Outer.Inner
    assert rebuilt.args == (1, "two")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (stored("KeyError", ["k"], "builtins"), KeyError("k")),
        (stored("ValueError", "a text", "builtins"), ValueError("a text")),
        (stored("ValueError", None, "builtins"), ValueError(None)),
        (stored("ChordError", ["x"], "celery.exceptions"), exceptions.ChordError("x")),
        (stored("KeyboardInterrupt", [], "builtins"), KeyboardInterrupt()),
    ],
)
def test_what_is_stored_is_rebuilt(value, expected):
    rebuilt = decode_exception(value)
    assert type(rebuilt) is type(expected)
    assert rebuilt.args == expected.args


@pytest.mark.parametrize("name", ["TimeLimitExceeded", "SoftTimeLimitExceeded", "WorkerLostError", "Terminated"])
def test_what_peers_write_under_billiard_is_read_as_ours(name):
    rebuilt = decode_exception(stored(name, [5], "billiard.exceptions"))
    assert type(rebuilt) is getattr(exceptions, name)
    assert encode_exception(rebuilt) == stored(name, [5], "celery.exceptions")


@pytest.mark.parametrize(
    ("module", "home"),
    [("not.imported.here", "celery.exceptions"), (None, "celery.backends.base"), (5, "celery.exceptions")],
)
def test_an_unknown_class_is_made_up_and_nothing_is_imported(module, home):
    rebuilt = decode_exception(stored("Odd", ["a"], module))
    assert isinstance(rebuilt, Exception)
    assert (type(rebuilt).__name__, type(rebuilt).__module__, rebuilt.args) == ("Odd", home, ("a",))
    assert "not.imported.here" not in sys.modules


@pytest.mark.parametrize(
    ("name", "module"), [("system", "os"), ("environ", "os"), ("dict", "builtins"), ("__class__", "os")]
)
def test_what_is_no_exception_class_is_never_called(name, module):
    with pytest.raises(SecurityError, match=f"{module}.{name}"):
        decode_exception(stored(name, ["echo no"], module))


def test_a_constructor_that_wants_more_than_was_kept_gives_what_says_so():
    rebuilt = decode_exception(encode_exception(KeepsOne("a", "b")))
    assert type(rebuilt) is UnpickleableExceptionWrapper
    assert (rebuilt.exc_cls_name, rebuilt.exc_args, str(rebuilt)) == ("KeepsOne", ("a",), "KeepsOne('a')")


def test_a_constructor_that_wants_more_than_was_kept_gives_a_base_that_does_not():
    rebuilt = decode_exception(encode_exception(BadValue("field", "text")))
    assert type(rebuilt) is ValueError
    assert rebuilt.args == ("bad field",)


def test_a_failure_without_exception_stays_without():
    assert decode_exception(None) is None


@pytest.mark.parametrize(("value", "error"), [(5, TypeError), ("text", TypeError), ({}, ValueError), ([], TypeError)])
def test_what_is_no_stored_exception_is_an_error(value, error):
    with pytest.raises(error, match="stored exception"):
        decode_exception(value)


def test_with_pickle_the_exception_itself_travels():
    error = ValueError("boom")
    travelled = pickle.loads(pickle.dumps(encode_exception(error, "pickle")))
    rebuilt = decode_exception(travelled)
    assert type(rebuilt) is ValueError
    assert rebuilt.args == ("boom",)


def test_an_exception_that_cannot_be_pickled_still_travels():
    class Local(Exception):
        pass

    travelled = pickle.loads(pickle.dumps(encode_exception(Local("boom"), "pickle")))
    rebuilt = decode_exception(travelled)
    assert isinstance(rebuilt, Exception)
    assert "boom" in str(rebuilt)


@given(st.text(), st.none() | st.text(), st.none() | st.text() | st.lists(st.integers()))
def test_any_stored_name_is_rebuilt_or_refused_in_a_known_way(name, module, message):
    try:
        assert isinstance(decode_exception(stored(name, message, module)), BaseException)
    except (SecurityError, ValueError):
        pass


CAPTURED = [
    record["result"]
    for vector in json.loads((Path(__file__).parents[2] / "data/wire_vectors/results_redis.json").read_text())[
        "vectors"
    ]
    for record in (json.loads(message["payload"]) for message in vector.get("pubsub", ()))
    if isinstance(record.get("result"), dict) and "exc_type" in record["result"]
]


@pytest.mark.parametrize("value", CAPTURED, ids=lambda value: value["exc_type"])
def test_a_captured_exception_is_rebuilt(value):
    rebuilt = decode_exception(value)
    assert type(rebuilt).__name__ == value["exc_type"]
    assert list(rebuilt.args) == value["exc_message"]
    if type(rebuilt).__module__ == value["exc_module"]:
        assert encode_exception(rebuilt) == value
