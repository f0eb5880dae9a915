"""Headers that look alike are read as if each were parsed."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp import frames, shapes
from celery.brokers.amqp.fields import DECODE_ERRORS

texts = st.one_of(st.text("ab", max_size=3), st.text(max_size=3))
values = st.one_of(
    texts, st.none(), st.booleans(), st.integers(0, 2), st.lists(texts, max_size=2), st.dictionaries(texts, texts),
    st.lists(st.lists(texts, max_size=1), max_size=2),
)  # fmt: skip
names = st.sampled_from(["id", "task", "stamps", "reply_to", "x"])
properties = st.fixed_dictionaries(
    {"headers": st.dictionaries(names, values, max_size=4)},
    optional={"content_type": texts, "reply_to": texts, "priority": st.integers(0, 2), "message_id": texts},
)


def header(size=3, **fields):
    return frames.encode_content_header(fields, size)


@given(st.lists(st.tuples(properties, st.integers(0, 300)), max_size=30))
def test_every_header_is_read_as_if_it_were_parsed(found):
    reader = shapes.Shapes()
    for fields, size in found * 2:
        payload = header(size, **fields)
        assert reader.read(payload) == frames.decode_content_header(payload)


@given(properties, st.data())
def test_damaged_headers_are_read_as_if_they_were_parsed(fields, data):
    reader, payload = shapes.Shapes(), header(**fields)
    for _ in range(4):
        reader.read(payload)
        place = data.draw(st.integers(0, len(payload) - 1))
        damaged = payload[:place] + bytes((data.draw(st.integers(0, 255)),)) + payload[place + 1 :]
        try:
            expected = frames.decode_content_header(damaged)
        except DECODE_ERRORS:
            with pytest.raises(DECODE_ERRORS):
                reader.read(damaged)
        else:
            read = reader.read(damaged)
            assert read == expected or "nan" in repr(read)


def test_nothing_is_shared_between_messages():
    reader = shapes.Shapes()
    payload = header(headers={"timelimit": [None, None], "stamps": {"a": "b"}, "deep": "x"}, reply_to="r")
    for _ in range(4):
        _, read = reader.read(payload)
        assert read == {"headers": {"timelimit": [None, None], "stamps": {"a": "b"}, "deep": "x"}, "reply_to": "r"}
        read["headers"]["timelimit"].append(1)
        read["headers"]["stamps"].clear()
        read["headers"].clear()
        read.clear()


def test_messages_that_differ_in_ids_only_are_seldom_parsed():
    reader = shapes.Shapes()
    for number in range(1000):
        task = f"tasks.{'abc'[number % 3]}"
        name = str(uuid.uuid4())
        payload = header(headers={"task": task, "id": name, "root_id": name, "retries": number % 2}, message_id=name)
        assert reader.read(payload)[1]["headers"]["id"] == name
    assert reader.parsed < 30


def test_messages_that_differ_in_numbers_are_seldom_parsed():
    reader = shapes.Shapes()
    for number in range(-500, 500):
        payload = header(headers={"group_index": number, "id": "a", "large": 2**40})
        assert reader.read(payload)[1]["headers"] == {"group_index": number, "id": "a", "large": 2**40}
    assert reader.parsed < 5


def test_messages_without_likeness_are_seldom_learnt_from():
    reader = shapes.Shapes()
    for number in range(2000):
        reader.read(header(headers={"number": number, "text": "x" * (number % 700)}))
    assert reader.learnt < 64 + 2000 / 10
