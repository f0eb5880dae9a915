"""wire.md 4.1 and 4.3, and every captured result record."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from celery.exceptions import ContentDisallowed, DecodeError, EncodeError
from celery.wire.compression import pack_result
from celery.wire.results import (
    ResultNode,
    decode_record,
    encode_record,
    extended_fields,
    group_tuple,
    make_record,
    read_tuple,
    success_json,
    success_part_json,
    task_tuple,
    with_exception,
)
from celery.wire.serializers import dumps, loads, resolve_accept

DATA = Path(__file__).parents[2] / "data/wire_vectors"
NOW = datetime(2026, 11, 22, 10, 56, 3, 626726, tzinfo=UTC)


def vectors(file):
    return json.loads((DATA / f"{file}.json").read_text())["vectors"]


def captured_texts():
    for vector in vectors("results_redis"):
        for number, message in enumerate(vector.get("pubsub", ())):
            yield f"redis-{vector['name']}-{number}", message["payload"]
        for number, entry in enumerate(vector.get("backend", {}).values()):
            if entry["type"] == "string" and entry["value"].startswith("{"):
                yield f"redis-{vector['name']}-stored-{number}", entry["value"]
    for file, field in (
        ("results_redis_extended", "value"),
        ("results_filesystem", "content"),
        ("results_rpc_amqp", "body"),
    ):
        for number, vector in enumerate(vectors(file)):
            if vector[field].startswith("{"):
                yield f"{file}-{number}", vector[field]


TEXTS = dict(captured_texts())
RECORDS = {name: text for name, text in TEXTS.items() if '"status"' in text}
GROUPS = {name: text for name, text in TEXTS.items() if '"status"' not in text}


@pytest.mark.parametrize("name", TEXTS)
def test_a_captured_record_is_read_and_written_again_to_the_byte(name):
    assert encode_record(decode_record(TEXTS[name])).decode() == TEXTS[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_captured_record_is_built_from_its_parts(name):
    captured = decode_record(RECORDS[name])
    rebuilt = with_exception(captured)
    stamps = captured.get("stamped_headers")
    extended = None
    if "name" in captured:
        extended = extended_fields(
            **{field: captured[field] for field in ("name", "args", "kwargs", "worker", "retries", "queue")},
            stamped_headers=stamps,
            stamps={stamp: captured[stamp] for stamp in stamps or ()},
        )
    known = (
        rebuilt["result"] is not captured["result"]
        and type(rebuilt["result"]).__module__ == (captured["result"]["exc_module"])
    )
    built = make_record(
        captured["task_id"],
        rebuilt["result"] if known else captured["result"],
        captured["status"],
        now=datetime.fromisoformat(captured["date_done"]) if captured["date_done"] else NOW,
        traceback=captured["traceback"],
        children=captured["children"],
        group_id=captured.get("group_id"),
        parent_id=captured.get("parent_id"),
        extended=extended,
    )
    assert encode_record(built).decode() == RECORDS[name]


PLAIN_SUCCESSES = [name for name, text in RECORDS.items() if '"status": "SUCCESS"' in text and '"name"' not in text]


@pytest.mark.parametrize("name", PLAIN_SUCCESSES)
def test_a_captured_success_is_written_without_building_its_record(name):
    """wire.md 4.1"""
    captured = decode_record(RECORDS[name])
    parts = {field: captured[field] for field in ("children", "group_id", "parent_id") if field in captured}
    written = success_json(captured["task_id"], captured["result"], done=captured["date_done"], **parts)
    assert written.decode() == RECORDS[name]


class Seven(int):
    def __repr__(self):
        return "seven"


VALUES = [
    None, True, False, 0, -1, 10**30, 1.5, float("nan"), float("-inf"),
    "", 'a "quoted" \\ line\n', "\u20ac \ud83d\ude00 \ud800",
    [], {}, [1, [2, None]], {"a": {1: True}}, (1, 2), Decimal("1.10"), b"\xff", b"plain", NOW, UUID(int=7), Seven(7),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("parts", [
    {}, {"children": []}, {"children": [(("child", None), None)]}, {"group_id": 'g"1'},
    {"group_id": "", "parent_id": "p\u00e9"},
    {"children": [], "group_id": "g", "parent_id": "p"},
], ids=repr)  # fmt: skip
def test_a_success_is_written_to_the_same_bytes_as_its_record(value, parts):
    """wire.md 4.1"""
    record = make_record("an \u2013 id", value, "SUCCESS", now=NOW, **parts)
    assert success_json("an \u2013 id", value, done=NOW.isoformat(), **parts) == encode_record(record)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_part_of_a_success_is_written_to_the_same_bytes_as_an_encoder_writes(value):
    """wire.md 4.5"""
    assert success_part_json("an \u2013 id", value) == dumps([1, "an \u2013 id", "SUCCESS", value])[2]


def test_vectors_of_every_kind_were_found():
    assert len(RECORDS) > 50
    assert GROUPS
    assert any("stamped_headers" in text for text in RECORDS.values())


@pytest.mark.parametrize(
    "vector", [vector for vector in vectors("results_redis_compressed") if "decoded" in vector], ids=lambda v: v["key"]
)
def test_a_captured_compressed_record_is_read(vector):
    assert decode_record(b64decode(vector["value_b64"])) == vector["decoded"]


def database_blobs():
    for vector in vectors("results_database"):
        for table, content in vector["tables"].items():
            columns = [name for name, kind in content["columns"]]
            blobs = {name for name, kind in content["columns"] if kind == "BLOB"}
            for row in content["rows"]:
                for name, value in zip(columns, row, strict=True):
                    if name in blobs and value is not None:
                        yield f"{vector['config']}-{table}-{name}-{row[0]}", name, value


BLOBS = list(database_blobs())


@pytest.mark.parametrize(("name", "column", "text"), BLOBS, ids=[blob[0] for blob in BLOBS])
def test_a_captured_database_blob_is_read_and_written_again(name, column, text):
    value = loads(text, "application/json", "utf-8", resolve_accept(["json"]))
    assert encode_record(value).decode() == text
    if column == "children":
        assert all(read_tuple(child).members is None for child in value)


@pytest.mark.parametrize("name", GROUPS)
def test_a_captured_group_is_read_and_written_again(name):
    group = decode_record(GROUPS[name])["result"]
    node = read_tuple(group)
    members = [task_tuple(member.id) for member in node.members]
    assert json.loads(encode_record({"result": group_tuple(node.id, members)})) == json.loads(GROUPS[name])


def test_only_a_finished_state_has_a_date():
    assert make_record("i", {"pid": 1}, "STARTED", now=NOW)["date_done"] is None
    assert make_record("i", None, "CUSTOM", now=NOW)["date_done"] is None
    assert make_record("i", None, "REVOKED", now=NOW)["date_done"] == "2026-11-22T10:56:03.626726+00:00"


def test_an_exception_is_encoded_only_as_the_result_of_a_state_that_has_one():
    assert make_record("i", KeyError("k"), "RETRY", now=NOW)["result"]["exc_type"] == "KeyError"
    with pytest.raises(EncodeError, match=r"\['result'\]"):
        encode_record(make_record("i", KeyError("k"), "SUCCESS", now=NOW))


def test_a_record_keeps_rich_values_and_comes_back_with_its_exception():
    record = make_record("i", {"when": NOW}, "SUCCESS", now=NOW, children=[task_tuple("c")])
    back = decode_record(encode_record(record))
    assert back["result"] == {"when": NOW}
    assert with_exception(back) is back
    failed = with_exception(decode_record(encode_record(make_record("i", ValueError("x"), "FAILURE", now=NOW))))
    assert repr(failed["result"]) == "ValueError('x')"


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_carries_a_failure(serializer):
    record = make_record("i", ValueError("x"), "FAILURE", now=NOW, serializer=serializer)
    for payload in (
        encode_record(record, serializer),
        pack_result(encode_record(record, serializer), "zlib"),
    ):
        back = with_exception(decode_record(payload, serializer))
        assert repr(back["result"]) == "ValueError('x')"


def test_a_record_in_a_type_that_is_not_accepted_is_refused():
    payload = encode_record({"result": 1}, "pickle")
    with pytest.raises(ContentDisallowed):
        decode_record(payload, "pickle", resolve_accept(["json"]))


@pytest.mark.parametrize("payload", [b"5", b"", b"{", "[]"])
def test_what_is_no_record_is_a_decode_error(payload):
    with pytest.raises(DecodeError):
        decode_record(payload)


def test_result_tuples_are_read_with_parents_and_members():
    value = [["g", [["p", None], None]], [[["a", None], None], ["b", None]]]
    assert read_tuple(value) == ResultNode(
        "g", ResultNode("p", None, None), [ResultNode("a", None, None), ResultNode("b", None, None)]
    )
    built = group_tuple("g", [task_tuple("a"), task_tuple("b")], parent=task_tuple("p"))
    assert read_tuple(built) == read_tuple(value)


@pytest.mark.parametrize("value", [None, 5, [], [["a"], None], [[5, None], None], [["a", 5], None]])
def test_what_is_no_result_tuple_is_an_error(value):
    with pytest.raises(ValueError, match="result tuple"):
        read_tuple(value)
