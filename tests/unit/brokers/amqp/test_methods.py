"""The method table and its codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp.fields import DECODE_ERRORS, FieldError
from celery.brokers.amqp.methods import METHODS, decode_method, encode_method, name_of

KINDS = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "name": st.text(max_size=60),
    "text": st.text(max_size=60),
    "blob": st.binary(max_size=60),
    "table": st.dictionaries(st.text(max_size=10), st.integers(0, 9) | st.text(max_size=5)),
}

calls = st.sampled_from(sorted(METHODS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.fixed_dictionaries({argument: KINDS[kind] for argument, kind in METHODS[name].arguments})
    )
)


@given(calls)
def test_a_method_reads_as_it_was_written(call):
    name, arguments = call
    method, read = decode_method(encode_method(name, arguments))
    assert (method.name, read) == (name, arguments)


@given(calls, st.data())
def test_a_method_that_is_cut_short_is_an_error(call, data):
    encoded = encode_method(*call)
    cut = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        decode_method(cut)
    except DECODE_ERRORS:
        assert cut != encoded or len(encoded) == 0
    else:
        assert cut == encoded


def test_arguments_left_out_are_zero_and_bits_share_an_octet():
    assert encode_method("queue.declare", {"queue": "q", "durable": True, "auto_delete": True}) == (
        b"\x00\x32\x00\x0a\x00\x00\x01q\x0a\x00\x00\x00\x00"
    )


def test_replies_are_known():
    assert METHODS["basic.get"].replies == {"basic.get-ok", "basic.get-empty"}
    assert METHODS["basic.ack"].replies == frozenset()
    assert all(reply in METHODS for method in METHODS.values() for reply in method.replies)
    assert (name_of(50, 10), name_of(0, 0)) == ("queue.declare", "")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("queue.declare", {"quue": "a"}, "no argument quue"),
        ("queue.declare", {"queue": None}, "queue: "),
        ("basic.qos", {"prefetch_count": 70000}, "prefetch_count: 70000 is not between 0 and 65535"),
        ("queue.declare", {"arguments": {"x": object()}}, "arguments: x: "),
    ],
)
def test_arguments_that_do_not_fit_are_named(name, arguments, words):
    with pytest.raises(FieldError, match=words):
        encode_method(name, arguments)
