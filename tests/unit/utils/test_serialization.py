"""Exceptions and plain data across process borders."""

import pickle
from datetime import date, datetime, timedelta

import pytest

from celery.utils.serialization import (
    UnpickleableExceptionWrapper,
    b64decode,
    b64encode,
    create_exception_cls,
    get_pickleable_etype,
    get_pickleable_exception,
    get_pickled_exception,
    jsonify,
    raise_with_context,
    strtobool,
)


def test_an_exception_that_pickles_is_left_alone():
    error = ValueError("x")
    assert get_pickleable_exception(error) is error


def test_an_exception_of_a_local_class_goes_as_its_closest_public_base():
    class Local(KeyError):
        pass

    assert repr(get_pickleable_exception(Local("k"))) == "KeyError('k')"
    assert get_pickleable_etype(Local) is KeyError


def test_an_exception_that_cannot_be_pickled_is_wrapped_and_restored():
    class Local(Exception):
        pass

    back = pickle.loads(pickle.dumps(get_pickleable_exception(Local("a", lambda: 0))))
    assert isinstance(back, UnpickleableExceptionWrapper)
    assert "Local('a'" in str(back)
    restored = get_pickled_exception(back)
    assert type(restored).__name__ == "Local"
    assert restored.args[0] == "a"


def test_a_made_up_exception_class_has_name_and_module():
    made = create_exception_cls("Lost", "far.away")
    assert (made.__name__, made.__module__, made.__base__) == ("Lost", "far.away", Exception)


def test_a_new_error_is_caused_by_the_one_being_handled():
    def fail():
        try:
            raise ValueError("first")
        except ValueError:
            raise_with_context(KeyError("then"))

    with pytest.raises(KeyError) as info:
        fail()
    assert isinstance(info.value.__cause__, ValueError)


def test_words_stand_for_truth():
    assert [strtobool(word) for word in ("yes", "On", "1", "false", "no", True, 3)] == [
        True, True, True, False, False, True, 3,
    ]  # fmt: skip
    with pytest.raises(TypeError, match="maybe"):
        strtobool("maybe")


def test_data_is_reduced_to_what_json_has():
    data = {"at": datetime(2020, 1, 1), "on": [date(2020, 1, 1)], "for": (timedelta(1),), "none": None, "secret": 1}
    assert jsonify(data, keyfilter=lambda key: key != "secret") == {
        "at": "2020-01-01T00:00:00", "on": ["2020-01-01"], "for": ["1 day, 0:00:00"], "none": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match="where"):
        jsonify({"where": object()})
    assert jsonify([{1}], unknown_type_filter=sorted) == [[1]]


def test_base_64_goes_both_ways():
    assert b64encode("a") == "YQ=="
    assert b64decode(b64encode(b"\x00a")) == b"\x00a"
