"""Layered mappings and bounded collections."""

import pickle
from types import SimpleNamespace

import pytest

from celery.utils.collections import (
    AttributeDict,
    BufferMap,
    ChainMap,
    ConfigurationView,
    DictAttribute,
    LimitedSet,
    Messagebuffer,
    force_mapping,
    lpmerge,
)


def test_what_is_written_covers_the_defaults():
    defaults = {"a": 1, "b": 2}
    view = ConfigurationView({"a": 5}, [defaults])
    view.c = 3
    view["b"] = 4
    assert dict(view) == {"a": 5, "b": 4, "c": 3}
    assert defaults == {"a": 1, "b": 2}
    view.clear()
    assert view.a == 1
    assert view.first("x", "b") == 2
    with pytest.raises(AttributeError, match="nothing"):
        _ = view.nothing


def test_a_prefix_and_renamings_are_tried():
    view = ConfigurationView({"celery_a": 1, "OLD_B": 2}, keys=[lambda key: f"OLD_{key.upper()}"], prefix="celery")
    assert (view.a, view.b) == (1, 2)
    assert "a" in view


def test_added_defaults_come_before_the_others_and_updates_are_told():
    chain, told = ChainMap({}, {"a": 1}), []
    chain.add_defaults(SimpleNamespace(a=2))
    assert chain["a"] == 2
    chain.bind_to(lambda *args, **kwargs: told.append(kwargs))
    chain.update(a=3)
    assert chain["a"] == 3
    assert told == [{"a": 3}]


def test_an_object_reads_as_a_mapping():
    mapping = force_mapping(SimpleNamespace(x=1))
    assert isinstance(mapping, DictAttribute)
    assert mapping["x"] == mapping.x == 1
    assert mapping.get("y") is None
    mapping["y"] = 2
    assert mapping.obj.y == 2
    assert "x" in mapping
    assert AttributeDict(x=1).x == 1


def test_merging_skips_none():
    assert lpmerge({"a": 1}, {"a": None, "b": 2}) == {"a": 1, "b": 2}


def test_a_limited_set_forgets_the_oldest():
    ids = LimitedSet(maxlen=2)
    for stamp, item in enumerate("abca"):
        ids.add(item, now=stamp)
    assert list(ids) == ["c", "a"]
    assert "b" not in ids
    assert ids.pop() == "c"
    assert pickle.loads(pickle.dumps(ids)) == ids


def test_a_limited_set_forgets_the_expired_but_keeps_a_minimum():
    ids = LimitedSet(expires=10, minlen=1)
    ids.add("a", now=0)
    ids.add("b", now=1)
    ids.purge(now=100)
    assert list(ids) == ["b"]
    ids.update({"c": 50.0})
    assert ids.as_dict() == {"c": 50.0}


def test_a_limited_set_refuses_nonsense():
    with pytest.raises(ValueError, match="minlen"):
        LimitedSet(maxlen=1, minlen=2)


def test_buffers_drop_their_oldest():
    buffer = Messagebuffer(2, [1, 2, 3])
    assert list(buffer) == [2, 3]
    with pytest.raises(Messagebuffer.Empty):
        buffer.take()
    buffers = BufferMap(3)
    for number in range(5):
        buffers.put(number % 2, number)
    assert buffers.total == 3
    assert buffers.take(0) == 2
    assert buffers.take("none", None) is None
