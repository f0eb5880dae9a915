"""AMQP field tables: what we write, what we read, and what we refuse (wire.md 2.1)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery.brokers.amqp.fields import DECODE_ERRORS, FieldError, decode_table, encode_table

times = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
decimals = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(2**31), 2**31 - 1), st.integers(0, 20)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | times
    | decimals
    | st.binary()
)
keys = st.text(max_size=40).filter(lambda key: len(key.encode("utf-8", "surrogatepass")) < 256)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)


@settings(max_examples=50)
@given(st.dictionaries(keys, values))
def test_what_is_written_reads_the_same(table):
    encoded = encode_table(table)
    assert decode_table(b"??" + encoded, 2) == (table, len(encoded) + 2)


@settings(max_examples=50)
@given(st.dictionaries(keys, values, min_size=1), st.data())
def test_a_table_that_is_cut_short_is_an_error_and_never_hangs(table, data):
    encoded = encode_table(table)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DECODE_ERRORS):
        decode_table(encoded[:cut], 0)


@given(st.binary(max_size=60))
def test_garbage_is_read_or_refused(garbage):
    try:
        table, _ = decode_table(len(garbage).to_bytes(4, "big") + garbage, 0)
    except DECODE_ERRORS:
        return
    assert isinstance(table, dict)


@pytest.mark.parametrize(
    ("tagged", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"I\xff\xff\xff\xff", -1),
        (b"l\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"L\x00\x00\x00\x00\x00\x00\x00\x07", 7),
        (b"f\x3f\x80\x00\x00", 1.0),
        (b"t\x02", True),
        (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
        (b"S\x00\x00\x00\x01\xff", b"\xff"),
        (b"T\x7f\xff\xff\xff\xff\xff\xff\xff", 2**63 - 1),
        (b"T\x00\x00\x00\x00\x65\x92\x00\x80", datetime(2024, 1, 1, 0, 0, tzinfo=UTC)),
        (b"D\x02\x00\x00\x00\x6e", Decimal("1.10")),
    ],
)
def test_every_tag_that_a_server_or_peer_writes_is_read(tagged, value):
    entry = b"\x01k" + tagged
    assert decode_table(len(entry).to_bytes(4, "big") + entry, 0)[0] == {"k": value}


def test_integers_travel_in_32_bits_and_in_64_when_larger():
    assert encode_table({"n": 2**31 - 1})[6:7] == b"I"
    assert encode_table({"n": 2**31})[6:7] == b"l"


def test_a_subclass_travels_as_what_it_is_a_kind_of():
    class Name(str):
        __slots__ = ()

    class Table(dict):
        pass

    assert decode_table(encode_table({"a": Name("x"), "b": Table(c=(1, True))}), 0)[0] == {
        "a": "x",
        "b": {"c": [1, True]},
    }


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"id": uuid.UUID(int=0)}, "id: .*UUID.*as text"),
        ({"a": {"b": [object()]}}, "a: b: .*object"),
        ({"n": 2**63}, "n: .*64 bits"),
        ({"d": Decimal("NaN")}, "d: .*NaN"),
        ({"d": Decimal(2**40)}, "d: .*32 bits"),
        ({5: 1}, "5 is a int"),
        ({"k" * 256: 1}, "255 at most"),
    ],
)
def test_what_cannot_travel_is_refused_by_its_path(table, words):
    with pytest.raises(FieldError, match=words):
        encode_table(table)


def test_a_value_that_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(FieldError, match="deeply"):
        encode_table({"a": endless})
