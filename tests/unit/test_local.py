"""Stand-ins behave as what they stand for (API-008)."""

import copy
import pickle

import pytest

from celery.local import PromiseProxy, Proxy, class_property, maybe_evaluate, try_import


class Box:
    """A box."""

    def __init__(self):
        self.content = 1

    def __enter__(self):
        return "inside"

    def __exit__(self, *exc):
        self.content = exc[0]


def add(x, y):
    """Sum of two."""
    return x + y


def test_a_proxy_asks_at_every_use():
    answers = iter([[1], [1, 2]])
    proxy = Proxy(lambda: next(answers))
    assert len(proxy) == 1
    assert len(proxy) == 2


def test_a_proxy_passes_its_arguments_to_the_function():
    assert Proxy(add, args=(1,), kwargs={"y": 2}) == 3


def test_a_proxy_is_an_instance_of_the_class_behind_it():
    assert isinstance(Proxy(dict), dict)
    assert type(Proxy(dict)) is Proxy


def test_name_and_docstring_are_the_objects_own_unless_given():
    proxy = Proxy(lambda: add)
    assert (proxy.__name__, proxy.__doc__, proxy.__module__) == ("add", "Sum of two.", add.__module__)
    assert Proxy(lambda: add, name="other", __doc__="Else.").__name__ == "other"
    assert Proxy(lambda: add, name="other", __doc__="Else.").__doc__ == "Else."
    assert Proxy.__module__ == "celery.local"
    assert "Stand-in" in Proxy.__doc__


def test_attributes_are_read_written_and_deleted_on_the_object():
    box = Box()
    proxy = Proxy(lambda: box)
    proxy.content = 2
    assert box.content == proxy.content == 2
    assert proxy.__dict__ is box.__dict__
    assert "content" in dir(proxy)
    del proxy.content
    assert not hasattr(box, "content")


def test_operators_work_on_either_side():
    three = Proxy(lambda: 3)
    assert (three + 1, 1 + three, three**2, 2**three, 7 % three, -three, [0] * three) == (
        4, 4, 9, 8, 1, -3, [0, 0, 0],
    )  # fmt: skip
    assert three == 3
    assert hash(three) == hash(3)
    assert f"{three:02d}" == "03"
    assert float(three) == 3.0
    assert round(Proxy(lambda: 3.14159), 2) == 3.14


def test_containers_work_through_a_proxy():
    target = {"a": 1}
    proxy = Proxy(lambda: target)
    proxy["b"] = 2
    del proxy["a"]
    assert target == {"b": 2}
    assert "b" in proxy
    assert list(proxy) == ["b"]
    assert bool(Proxy(dict)) is False


def test_a_proxy_of_a_context_manager_is_one():
    box = Box()
    with Proxy(lambda: box) as value:
        assert value == "inside"
    assert box.content is None


def test_pickling_a_proxy_pickles_the_object():
    assert type(pickle.loads(pickle.dumps(Proxy(lambda: [1])))) is list


def test_copying_a_proxy_copies_the_object():
    target = [1]
    copied = copy.copy(Proxy(lambda: target))
    assert copied == target
    assert copied is not target


def test_a_promise_is_made_once_at_first_use():
    made = []
    promise = PromiseProxy(lambda: made.append(1) or [])
    assert not made
    assert not promise.__evaluated__()
    promise.append("x")
    promise.append("y")
    assert promise.__evaluated__()
    assert promise == ["x", "y"]
    assert made == [1]


def test_asking_for_the_class_of_a_promise_does_not_keep_it_from_being_recognised():
    promise = PromiseProxy(list)
    assert isinstance(promise, PromiseProxy)
    assert not promise.__evaluated__()


def test_what_waits_for_a_promise_runs_when_it_is_made():
    promise, seen = PromiseProxy(lambda: 5), []
    promise.__then__(seen.append, "early")
    assert seen == []
    assert promise.__evaluate__() == 5
    assert seen == ["early"]
    promise.__then__(seen.append, "late")
    assert seen == ["early", "late"]
    assert promise.__evaluate__() == 5
    assert seen == ["early", "late"]


def test_a_promise_whose_making_failed_is_tried_again():
    attempts = iter([True, False])

    def make():
        if next(attempts):
            raise LookupError("not yet")
        return 1

    promise = PromiseProxy(make)
    with pytest.raises(LookupError):
        promise.__maybe_evaluate__()
    assert promise.__maybe_evaluate__() == 1


def test_maybe_evaluate_leaves_other_objects_alone():
    thing = object()
    assert maybe_evaluate(thing) is thing
    assert maybe_evaluate(PromiseProxy(lambda: thing)) is thing


def test_try_import_falls_back_to_the_default():
    assert try_import("celery.states").SUCCESS == "SUCCESS"
    assert try_import("no_such_module_anywhere", default=3) == 3


def test_a_class_property_is_read_and_written_through_instances():
    class Config:
        values = {"a": 1}

        @class_property
        def a(cls):
            return cls.values["a"]

        @a.setter
        def a(cls, value):
            cls.values["a"] = value

    assert Config.a == 1
    Config().a = 2
    assert Config.a == Config().a == 2
