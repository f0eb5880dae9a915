"""wire.md 1.8: what each serializer writes, reads and refuses."""

from __future__ import annotations

import collections
import enum
import json
import math
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured
from celery.wire.serializers import (
    Serializer,
    can_encode,
    content_of,
    dumps,
    known_names,
    loads,
    register,
    resolve_accept,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data/wire_vectors/json_types.json").read_text())
ALL = resolve_accept(["json", "pickle", "yaml", "msgpack", "text"])
#: What the vectors show as Python text.
NAMES = {
    "datetime": datetime,
    "date": date,
    "time": time,
    "Decimal": Decimal,
    "UUID": UUID,
    "UTC": UTC,
}


def round_trip(value, serializer="json"):
    content_type, encoding, payload = dumps(value, serializer)
    return loads(payload, content_type, encoding, ALL)


def load_json(text):
    return loads(text if isinstance(text, bytes) else text.encode(), "application/json", "utf-8", ALL)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["python"])
def test_an_extension_type_travels_as_captured(vector):
    value = eval(vector["python"], dict(NAMES))
    _, _, payload = dumps(value)
    assert json.loads(payload) == vector["json"]
    decoded = load_json(payload)
    assert decoded == (eval(vector["decodes_to"]) if "decodes_to" in vector else value)
    assert type(decoded) is (list if "decodes_to" in vector else type(value))


REFUSED = {
    "set": {1},
    "frozenset": frozenset({1}),
    "timedelta": timedelta(1),
    "complex": 1j,
    "object": object(),
}


@pytest.mark.parametrize("name", VECTORS["rejected"])
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_what_peers_refuse_is_refused(name, serializer):
    with pytest.raises(EncodeError, match=f"type {name}"):
        dumps(REFUSED[name], serializer)


def test_json_is_written_as_peers_write_it():
    assert dumps([1, {"é": None}], "json") == ("application/json", "utf-8", b'[1, {"\\u00e9": null}]')


def test_extension_values_survive_at_any_depth():
    value = {"a": [{"when": datetime(2024, 2, 29, tzinfo=UTC)}, [Decimal("1.10"), b"\xff"]]}
    assert round_trip(value) == value


def test_zoned_values_keep_their_offset():
    assert dumps(time(1, 2, 3, tzinfo=UTC))[2] == b'{"__type__": "time", "__value__": "01:02:03+00:00"}'
    assert load_json('{"__type__":"datetime","__value__":"2024-02-29T01:02:03Z"}').tzinfo is UTC


class Colour(enum.StrEnum):
    RED = "red"


class Point:
    def __json__(self):
        return {"x": 1, "day": date(2024, 2, 29)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, '"red"'),
        (collections.namedtuple("Pair", "a b")(1, 2), "[1, 2]"),
        ({1: 2, None: 3, False: 4, 1.5: 5}, '{"1": 2, "null": 3, "false": 4, "1.5": 5}'),
        (2**70, "1180591620717411303424"),
        (math.inf, "Infinity"),
        ("\ud800", '"\\ud800"'),
        (Point(), '{"x": 1, "day": {"__type__": "date", "__value__": "2024-02-29"}}'),
    ],
)
def test_json_of_unusual_values_matches_peers(value, text):
    assert dumps(value)[2].decode() == text


@pytest.mark.parametrize(
    "text", ["NaN", "[NaN, Infinity, -Infinity]", '"\\ud800"', "1e400", "[12345678901234567890123]"]
)
def test_json_that_only_the_standard_library_reads_is_read(text):
    assert repr(load_json(text)) == repr(json.loads(text))


def test_a_mapping_with_more_than_the_two_extension_keys_stays_a_mapping():
    value = {"__type__": "date", "__value__": "2024-02-29", "x": 1}
    assert round_trip(value) == value
    assert load_json('{"__type__":"date"}') == {"__type__": "date"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xx",
        "[1",
        '{"__type__":"nope","__value__":1}',
        '{"__type__":[],"__value__":1}',
        '{"__type__":"uuid","__value__":"1"}',
        '{"__type__":"date","__value__":"yesterday"}',
        b"\xff\xfe",
    ],
)
def test_a_broken_body_is_a_decode_error(text):
    with pytest.raises(DecodeError, match="application/json"):
        load_json(text)


def test_json_in_another_encoding_is_read():
    assert loads('["é"]'.encode("latin-1"), "application/json", "latin-1", ALL) == ["é"]
    assert loads('["é"]'.encode(), "application/json", None, ALL) == ["é"]
    assert loads('["é"]', "application/json", "utf-8", ALL) == ["é"]


def test_an_encode_error_says_where_the_value_is():
    body = ([1, {"deep": [0, {2}]}], {}, {})
    with pytest.raises(EncodeError, match=r"cannot encode args\[1\]\['deep'\]\[1\], of type set"):
        dumps(body, names=("args", "kwargs", "embed"))
    with pytest.raises(EncodeError, match=r"cannot encode value\['k'\], of type dict: keys must be"):
        dumps({"k": {(1, 2): 3}})
    with pytest.raises(EncodeError, match="of type function"):
        dumps(lambda: 1, "pickle")


def test_an_encode_error_says_both_ends_of_a_long_way():
    value = {2}
    for _ in range(200):
        value = [value]
    way = r"value(\[0\]){4}\.\.\.\(192 more\)\.\.\.(\[0\]){4}"
    with pytest.raises(EncodeError, match=f"cannot encode {way}, of type set"):
        dumps(value)


def test_a_value_that_contains_itself_is_an_encode_error():
    loop = []
    loop.append(loop)
    with pytest.raises(EncodeError):
        dumps(loop)


def test_can_encode_answers_without_raising():
    assert can_encode([1])
    assert not can_encode({1})
    assert can_encode({1}, "pickle")


class Mine:
    def __reduce__(self):
        return pytest.fail, ("a refused body was decoded",)


def test_a_type_that_is_not_accepted_is_refused_before_decoding():
    content_type, encoding, payload = dumps(Mine(), "pickle")
    with pytest.raises(ContentDisallowed, match="accept_content"):
        loads(payload, content_type, encoding, resolve_accept(["json"]))


def test_a_missing_content_type_is_refused():
    with pytest.raises(ContentDisallowed, match="no content type"):
        loads(b"[]", None, "utf-8", ALL)


def test_raw_data_always_passes_and_stays_what_it_is():
    assert loads(b"\x80\x04.", "application/data", "binary", frozenset()) == b"\x80\x04."
    assert loads("é".encode(), "application/text", "utf-8", frozenset()) == "é"
    assert dumps(b"abc", "raw") == ("application/data", "binary", b"abc")
    with pytest.raises(EncodeError, match="neither bytes nor text"):
        dumps(1, "raw")


def test_accepted_text_is_text():
    assert loads("é".encode("latin-1"), "text/plain", "latin-1", ALL) == "é"
    assert loads(b"a", "text/plain", None, ALL) == "a"


def test_a_broken_raw_text_is_a_decode_error():
    with pytest.raises(DecodeError):
        loads(b"\xff", "application/text", "utf-8", ALL)


def test_accept_content_mixes_names_and_types():
    assert resolve_accept(["json", "application/x-yaml", "x/y"]) == {"application/json", "application/x-yaml", "x/y"}


@pytest.mark.parametrize("names", [["nope"], "json"])
def test_a_wrong_accept_content_is_explained(names):
    with pytest.raises(ImproperlyConfigured, match="json"):
        resolve_accept(names)


def test_an_unknown_serializer_is_named_with_the_known_ones():
    with pytest.raises(ImproperlyConfigured, match=r"named 'nope'.*json, msgpack, pickle"):
        dumps(1, "nope")


def test_an_accepted_type_that_nobody_knows_is_a_decode_error():
    with pytest.raises(DecodeError, match="no serializer is registered"):
        loads(b"1", "x/unheard-of", "utf-8", frozenset({"x/unheard-of"}))


def test_a_serializer_says_what_it_writes():
    assert content_of("json") == ("application/json", "utf-8")
    assert content_of("yaml") == ("application/x-yaml", "utf-8")


def test_pickle_uses_the_protocol_of_peers():
    assert dumps({1}, "pickle") == (
        "application/x-python-serialize",
        "binary",
        b"\x80\x04\x95\x07\x00\x00\x00\x00\x00\x00\x00\x8f\x94(K\x01\x90.",
    )
    assert round_trip({1, (2, 3)}, "pickle") == {1, (2, 3)}


def test_yaml_is_the_safe_subset():
    assert dumps([1], "yaml")[:2] == ("application/x-yaml", "utf-8")
    assert round_trip([1, {"é": date(2020, 1, 1)}], "yaml") == [1, {"é": date(2020, 1, 1)}]
    with pytest.raises(EncodeError):
        dumps(object(), "yaml")
    with pytest.raises(DecodeError):
        loads(b"!!python/object/apply:os.getpid []", "application/x-yaml", "utf-8", ALL)


def test_msgpack_keeps_bytes_and_text_apart():
    assert dumps([1, "a", b"b"], "msgpack") == ("application/x-msgpack", "binary", b"\x93\x01\xa1a\xc4\x01b")
    assert round_trip([1, "a", b"b", (2,)], "msgpack") == [1, "a", b"b", [2]]
    for foreign in (UUID(int=1), datetime(2020, 1, 1, tzinfo=UTC), Decimal(1), 2**70):
        with pytest.raises(EncodeError):
            dumps([foreign], "msgpack")


def test_a_serializer_registered_with_kombu_is_used():
    from kombu import serialization

    serialization.register("reversed", lambda o: o[::-1], lambda s: s.decode()[::-1], "x/reversed", "utf-8")
    try:
        assert dumps("abc", "reversed") == ("x/reversed", "utf-8", b"cba")
        assert content_of("reversed") == ("x/reversed", None)
        assert resolve_accept(["reversed"]) == {"x/reversed"}
        assert loads(b"cba", "x/reversed", "utf-8", frozenset({"x/reversed"})) == "abc"
        assert "reversed" in known_names()
    finally:
        serialization.unregister("reversed")


def test_a_serializer_registered_here_is_used():
    register(Serializer("b64-test", "x/b64-test", "utf-8", b64encode, lambda payload, _encoding: payload))
    assert dumps(b"a", "b64-test") == ("x/b64-test", "utf-8", b"YQ==")


def test_a_type_registered_with_kombu_json_travels_both_ways():
    from kombu.utils import json as kombu_json

    class Money:
        def __init__(self, cents):
            self.cents = cents

    kombu_json.register_type(Money, "money-test", lambda money: money.cents, Money)
    assert round_trip([Money(5)])[0].cents == 5


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_json_gives_back_what_it_was_given(value):
    assert round_trip(value) == value


@given(st.sampled_from(["application/json", "application/x-msgpack", "application/x-yaml"]), st.binary())
def test_any_bytes_are_read_or_a_decode_error(content_type, payload):
    try:
        outcome = repr(loads(payload, content_type, "utf-8", ALL))
    except DecodeError as refusal:
        outcome = str(refusal)
    assert outcome
