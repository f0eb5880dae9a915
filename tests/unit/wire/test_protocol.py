"""wire.md 1.1 to 1.4 and 1.10, and every captured task message."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.exceptions import ContentDisallowed, DecodeError, EncodeError, InvalidTaskError
from celery.wire.compression import decompress
from celery.wire.envelope import Envelope
from celery.wire.protocol import (
    UnknownMessageError,
    as_task_v1,
    as_task_v2,
    custom_headers,
    header_time,
    next_step,
    read_headers,
    read_task,
    retry_headers,
)
from celery.wire.serializers import dumps, loads, resolve_accept

DATA = Path(__file__).parents[2] / "data/wire_vectors"
ACCEPT = resolve_accept(["json"])
ANY = resolve_accept(["json", "pickle"])
NOW = datetime(2026, 11, 22, 10, 54, 37, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))
#: Properties that belong to the transport, not to the message.
TRANSPORT = {"body_encoding", "delivery_info", "delivery_tag"}
NO_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def vectors(file):
    return json.loads((DATA / f"{file}.json").read_text())["vectors"]


def from_redis(raw):
    outer = json.loads(raw)
    properties = {name: value for name, value in outer["properties"].items() if name not in TRANSPORT}
    return Envelope(
        outer["headers"], b64decode(outer["body"]), outer["content-type"], outer["content-encoding"], properties
    )


def from_amqp(frame):
    own = {name: value for name, value in frame["properties"].items() if not name.startswith("content_")}
    return Envelope(
        frame["headers"],
        frame["body"].encode(),
        frame["properties"]["content_type"],
        frame["properties"]["content_encoding"],
        own,
    )


PRODUCED = {
    f"{vector['name']}-{number}": from_redis(message["raw"])
    for vector in vectors("task_messages_redis")
    for number, message in enumerate(vector["messages"])
}
CAPTURED = {
    **PRODUCED,
    **{
        f"worker-{number}-{vector['kind']}": from_redis(vector["raw"])
        for number, vector in enumerate(vectors("task_messages_worker_published_redis"))
    },
    **{
        f"chord-unlock-{number}": from_redis(vector["raw"])
        for number, vector in enumerate(vectors("chord_unlock_redis"))
    },
    **{f"amqp-{number}": from_amqp(frame) for number, frame in enumerate(vectors("task_messages_amqp"))},
}
V1 = {name: envelope for name, envelope in CAPTURED.items() if "task" not in envelope.headers}
V2 = {name: envelope for name, envelope in CAPTURED.items() if "task" in envelope.headers}


def body_of(envelope):
    payload = envelope.body
    if "compression" in envelope.headers:
        payload = decompress(payload, envelope.headers["compression"])
    return loads(payload, envelope.content_type, envelope.content_encoding, ANY)


def shared_options(envelope, expires):
    """The call options that gave a captured message its properties and times."""
    properties = dict(envelope.properties)
    options = {name: properties.pop(name) for name in ("reply_to", "delivery_mode", "priority") if name in properties}
    properties.pop("correlation_id")
    if expires is not None:
        left = timedelta(milliseconds=int(properties.pop("expiration")))
        moment = datetime.fromisoformat(expires)
        options |= {"now": (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - left, "expires": expires}
    return options | {"properties": properties}


@pytest.mark.parametrize("name", V2)
def test_a_captured_message_is_written_again_to_the_byte(name):
    captured = V2[name]
    args, kwargs, embed = body_of(captured)
    head = dict(captured.headers)
    options = shared_options(captured, head.pop("expires"))
    head.pop("lang")
    hard, soft = head.pop("timelimit")
    compression = head.pop("compression", None)
    known = {
        "group_id": head.pop("group"),
        **{option: head.pop(option) for option in list(head) if option in TAKEN_AS_THEY_ARE},
    }
    rebuilt = as_task_v2(
        head.pop("id"),
        head.pop("task"),
        args,
        kwargs,
        time_limit=hard,
        soft_time_limit=soft,
        compression=compression,
        headers=head,
        serializer="pickle" if "pickle" in name else "json",
        **embed,
        **known,
        **options,
    )
    assert list(rebuilt.headers.items()) == list(captured.headers.items())
    assert rebuilt.properties == {"priority": 0} | captured.properties  # a broadcast came without
    assert (rebuilt.content_type, rebuilt.content_encoding) == (captured.content_type, captured.content_encoding)
    assert body_of(rebuilt) == body_of(captured)
    if compression is None:
        assert rebuilt.body == captured.body


TAKEN_AS_THEY_ARE = {
    "shadow",
    "eta",
    "group_index",
    "retries",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
}


@pytest.mark.parametrize("name", V1)
def test_a_captured_protocol_1_message_is_written_again_to_the_byte(name):
    captured = V1[name]
    body = body_of(captured)
    options = shared_options(captured, body["expires"])
    hard, soft = body["timelimit"]
    as_given = {
        option: body[option] for option in ("args", "kwargs", "group_index", "retries", "eta", "errbacks", "chord")
    }
    rebuilt = as_task_v1(
        body["id"],
        body["task"],
        callbacks=body["callbacks"],
        group_id=body["group"],
        time_limit=hard,
        soft_time_limit=soft,
        **as_given,
        **options,
    )
    assert rebuilt == captured


def test_a_chain_travels_as_nested_links_in_protocol_1():
    captured = V1["v1_chain-0"]
    (second,) = body_of(captured)["callbacks"]
    (third,) = second["options"]["link"]
    bare = {**second, "options": {name: value for name, value in second["options"].items() if name != "link"}}
    built = as_task_v1("i", "t", reply_to="q", chain=[third, bare])
    assert body_of(built)["callbacks"] == [second]
    assert "link" not in bare["options"]


REAL_CALLS = {
    "plain": {"args": (2, 3)},
    "kwargs": {"kwargs": {"x": 1, "y": 2}},
    "send_task": {"args": ["a"], "kwargs": {"b": None}, "name": "other.lang.task", "ignore_result": None},
    "task_id_shadow": {"args": (1, 1), "shadow": "pretty name"},
    "eta_aware": {"args": (1, 1), "eta": datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)},
    "eta_offset": {"args": (1, 1), "eta": datetime(2030, 1, 2, 3, 4, 5, tzinfo=INDIA)},
    "eta_naive": {"args": (1, 1), "eta": datetime(2030, 1, 2, 3, 4, 5)},
    "eta_iso_string": {"args": (1, 1), "eta": "2030-01-02T03:04:05Z"},
    "countdown_zero": {"args": (1, 1), "countdown": 0},
    "time_limits": {"args": (1, 1), "time_limit": 30, "soft_time_limit": 20.5},
    "priority_0": {"args": (1, 1), "priority": 0},
    "priority_9": {"args": (1, 1), "priority": 9},
    "priority_12": {"args": (1, 1), "priority": 12},
    "priority_neg": {"args": (1, 1), "priority": -1},
    "ignore_result": {"name": "w.ign", "ignore_result": True},
    "headers": {"args": (1, 1), "headers": {"x-trace": "abc", "n": 1}},
    "stamped": {
        "args": (1, 1),
        "stamped_headers": ["stamp", "tid"],
        "stamps": {"stamp": "v1", "tid": ["a", "b"]},
    },
    "replaced_nesting": {"args": (1, 1), "replaced_task_nesting": 2},
    "retries_option": {"args": (1, 1), "retries": 3},
    "nested_args": {"args": ([[[[[1]]]]],), "name": "w.ident"},
    "pickle": {"args": (1, 1), "serializer": "pickle"},
}


@pytest.mark.parametrize("name", REAL_CALLS)
def test_a_call_gives_the_captured_message(name):
    captured = PRODUCED[f"{name}-0"]
    given = {"name": "w.add", "args": None, "ignore_result": False} | REAL_CALLS[name]
    built = as_task_v2(
        captured.headers["id"], origin=captured.headers["origin"], reply_to=captured.properties["reply_to"], **given
    )
    assert built == captured


def test_a_countdown_and_expires_count_from_now():
    built = as_task_v2("i", "t", origin="o", reply_to="q", countdown=10, expires=60, now=NOW)
    assert built.headers["eta"] == "2026-11-22T10:54:47+00:00"
    assert built.headers["expires"] == "2026-11-22T10:55:37+00:00"
    assert built.properties["expiration"] == "60000"


def test_the_callers_headers_and_properties_win():
    built = as_task_v2(
        "i", "t", origin="o", reply_to="q", headers={"lang": "x", "mine": 1}, properties={"MessageGroupId": "g"}
    )
    assert built.headers["lang"] == "x"
    assert built.headers["mine"] == 1
    assert built.properties["MessageGroupId"] == "g"


def test_nesting_is_shown_as_deep_as_asked():
    shown = [
        as_task_v2("i", "t", ([[[[1]]]],), origin="o", reply_to="q", repr_maxlevels=levels).headers["argsrepr"]
        for levels in (2, 0, None)
    ]
    assert shown == ["([[...]],)", "([[[[1]]]],)", "([[[[1]]]],)"]


@pytest.mark.parametrize("build", [as_task_v1, as_task_v2])
def test_an_option_that_does_not_exist_is_refused(build):
    with pytest.raises(TypeError, match="colour"):
        build("i", "t", reply_to="q", colour="red")


def test_protocol_1_leaves_out_what_it_cannot_say():
    built = as_task_v1("i", "t", reply_to="q", root_id="r", shadow="s", stamps={"a": 1})
    assert built.headers == {}
    assert not {"root_id", "shadow", "stamps"} & body_of(built).keys()


def test_an_unencodable_argument_is_named():
    with pytest.raises(EncodeError, match=r"kwargs\['when'\]\[0\], of type timedelta"):
        as_task_v2("i", "t", (), {"when": [timedelta(1)]}, origin="o", reply_to="q")


@pytest.mark.parametrize(("args", "kwargs"), [("text", {}), ({}, {}), ((), [1]), ((), 5)])
def test_arguments_of_a_wrong_kind_name_the_task(args, kwargs):
    with pytest.raises(TypeError, match=r"of task w\.add must be"):
        as_task_v2("i", "w.add", args, kwargs, origin="o", reply_to="q")


# --- reading ---


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_message_is_read(name):
    envelope = CAPTURED[name]
    body = body_of(envelope)
    message = read_task(envelope, ANY)
    if name in V1:
        assert message.protocol == 1
        assert (message.id, message.task) == (body["id"], body["task"])
        assert (message.args, message.kwargs) == (body["args"], body["kwargs"])
        assert message.embed == {**NO_EMBED, "callbacks": body["callbacks"], "chord": body["chord"]}
        assert message.headers["group"] == body["taskset"]
        assert message.headers["timelimit"] == body["timelimit"]
    else:
        assert message.protocol == 2
        assert {**message.headers, **envelope.headers} == message.headers
        assert [message.args, message.kwargs] == [list(body[0]), body[1]]
        assert message.embed == {part: value or None for part, value in body[2].items()}
        assert read_headers(envelope) == message.headers


@pytest.mark.parametrize("frame", vectors("delayed_delivery_delivered_amqp"))
def test_a_message_from_the_delay_ladder_is_read(frame):
    message = read_task(from_amqp(frame), ACCEPT)
    assert (message.task, message.args) == (frame["headers"]["task"], json.loads(frame["body"])[0])
    assert header_time(message.headers, "eta") == datetime.fromisoformat(frame["headers"]["eta"])


def json_message(headers, body, content_type="application/json", encoding="utf-8"):
    return Envelope(headers, json.dumps(body, separators=(",", ":")).encode(), content_type, encoding, {})


TOLERATED = {
    "headers only task and id, base64 body": json_message({"task": "w.add", "id": "i"}, [[2, 3], {}, NO_EMBED]),
    "third body element {}": json_message({"task": "w.add", "id": "i"}, [[2, 3], {}, {}]),
    "third body element null": json_message({"task": "w.add", "id": "i"}, [[2, 3], {}, None]),
    "no content-encoding": json_message({"task": "w.add", "id": "i"}, [[2, 3], {}, {}], encoding=None),
    "eta with Z suffix, past": json_message(
        {"task": "w.add", "id": "i", "eta": "2020-01-01T00:00:00Z"}, [[2, 3], {}, {}]
    ),
    "eta without zone, past": json_message(
        {"task": "w.add", "id": "i", "eta": "2020-01-01T00:00:00"}, [[2, 3], {}, {}]
    ),
    "expires without zone, past": json_message(
        {"task": "w.add", "id": "i", "expires": "2020-01-01T00:00:00"}, [[2, 3], {}, {}]
    ),
    "retries null": json_message({"task": "w.add", "id": "i", "retries": None}, [[2, 3], {}, {}]),
    "timelimit null": json_message({"task": "w.add", "id": "i", "timelimit": None}, [[2, 3], {}, {}]),
    "unknown headers": json_message({"task": "w.add", "id": "i", "x": {"y": 1}}, [[2, 3], {}, {}]),
    "JSON without spaces": json_message({"task": "w.add", "id": "i"}, [[2, 3], {}, {}]),
    "v1 body {task,id,args,kwargs}, no headers": json_message(
        {}, {"task": "w.add", "id": "i", "args": [2, 3], "kwargs": {}}
    ),
    "v1 body with a callback": json_message(
        {}, {"task": "w.add", "id": "i", "args": [2, 3], "kwargs": {}, "callbacks": [{"task": "w.add", "args": [1]}]}
    ),
    "header task+id with a v1 body (hybrid)": json_message(
        {"task": "w.add", "id": "i"}, {"task": "other", "id": "j", "args": [2, 3], "kwargs": {}, "retries": 2}
    ),
}
#: Cases of the vector file that concern the Redis envelope around the message.
OF_THE_TRANSPORT = {
    "body_encoding utf-8 and a plain JSON string as body",
    "no body_encoding, plain JSON string as body",
    "no properties.delivery_info",
    "no content-type",
}


def test_every_case_of_the_tolerance_vectors_is_covered():
    assert {vector["case"] for vector in vectors("redis_envelope_tolerance")} == TOLERATED.keys() | OF_THE_TRANSPORT


@pytest.mark.parametrize("case", TOLERATED)
def test_what_peers_tolerate_is_read(case):
    message = read_task(TOLERATED[case], ACCEPT)
    assert (message.task, message.id, message.args, message.kwargs) == ("w.add", "i", [2, 3], {})
    assert message.headers["timelimit"] == [None, None]
    assert message.headers["root_id"] == "i"
    for name in ("eta", "expires"):
        assert header_time(message.headers, name) in (None, datetime(2020, 1, 1, tzinfo=UTC))


def test_a_hybrid_takes_metadata_from_the_body_overridden_by_headers():
    message = read_task(TOLERATED["header task+id with a v1 body (hybrid)"], ACCEPT)
    assert (message.protocol, message.task, message.headers["retries"]) == (2, "w.add", 2)


def test_a_callback_of_protocol_1_is_kept():
    message = read_task(TOLERATED["v1 body with a callback"], ACCEPT)
    assert message.embed["callbacks"] == [{"task": "w.add", "args": [1]}]


def test_a_message_without_content_type_is_refused():
    with pytest.raises(ContentDisallowed):
        read_task(json_message({"task": "t", "id": "i"}, [[], {}, {}], content_type=None), ACCEPT)


def test_a_refused_body_is_not_even_decompressed():
    built = as_task_v2("i", "t", origin="o", reply_to="q", serializer="pickle", compression="zlib")
    broken = Envelope(built.headers, b"not zlib", built.content_type, built.content_encoding, {})
    with pytest.raises(ContentDisallowed):
        read_task(broken, ACCEPT)
    with pytest.raises(DecodeError):
        read_task(broken, ANY)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, []),
        ({}, {"args": []}),
        ({}, 5),
        ({"id": "i"}, [[], {}, {}]),
        ({"task": "t", "id": "i"}, [[], {}]),
        ({"task": "t", "id": "i"}, {"kwargs": {}}),
        ({"task": "t", "id": "i"}, "text"),
    ],
)
def test_what_is_no_task_message_is_unknown(headers, body):
    with pytest.raises(UnknownMessageError):
        read_task(json_message(headers, body), ACCEPT)


@pytest.mark.parametrize(
    ("headers", "body", "complaint"),
    [
        ({"task": "t"}, [[], {}, {}], "has no id"),
        ({"task": "t", "id": "i"}, [[], [1], {}], "kwargs of task"),
        ({"task": "t", "id": "i"}, [5, {}, {}], "args of task"),
        ({"task": "t", "id": "i"}, [[], {}, [1]], "embed of task"),
        ({"task": "t", "id": "i", "eta": "soon"}, [[], {}, {}], "eta of task t"),
        ({"task": "t", "id": "i", "expires": 5}, [[], {}, {}], "expires of task t"),
        ({"task": "t", "id": 5}, [[], {}, {}], "id of task t"),
        ({"task": ["t"], "id": "i"}, [[], {}, {}], "task of task"),
        ({"task": "t", "id": "i", "retries": "two"}, [[], {}, {}], "retries of task t"),
        ({"task": "t", "id": "i", "timelimit": [5]}, [[], {}, {}], "timelimit of task t"),
        ({"task": "t", "id": "i", "timelimit": ["soon", None]}, [[], {}, {}], "timelimit of task t.*not .'soon', None"),
        ({}, {"task": "t", "id": "i", "eta": "soon"}, "eta of task t"),
        ({}, {"task": "t", "args": []}, "has no id"),
    ],
)
def test_a_task_that_cannot_run_is_invalid(headers, body, complaint):
    with pytest.raises(InvalidTaskError, match=complaint) as caught:
        read_task(json_message(headers, body), ACCEPT)
    assert not isinstance(caught.value, UnknownMessageError)


def test_headers_are_read_without_the_body():
    assert read_headers(Envelope({"task": "t", "id": "i"}, b"broken"))["retries"] == 0
    assert read_headers(Envelope({}, b"broken")) is None
    with pytest.raises(InvalidTaskError):
        read_headers(Envelope({"task": "t", "id": "i", "eta": "soon"}, b"broken"))


def test_a_protocol_1_time_without_utc_is_in_the_zone_of_the_application():
    body = {"task": "t", "id": "i", "utc": False, "eta": "2030-01-02T03:04:05", "expires": "2030-01-02T03:04:05Z"}
    message = read_task(json_message({}, body), ACCEPT, INDIA)
    assert message.headers["eta"] == "2030-01-02T03:04:05+05:30"
    assert message.headers["expires"] == "2030-01-02T03:04:05+00:00"


def test_taskset_wins_over_group_in_protocol_1():
    message = read_task(json_message({}, {"task": "t", "id": "i", "taskset": "s", "group": "g"}), ACCEPT)
    assert message.headers["group"] == "s"


def test_the_next_step_of_a_chain_is_its_last_element():
    first, second = {"task": "a"}, {"task": "b"}
    assert next_step([second, first]) == (first, [second])
    assert next_step([second]) == (second, [])
    assert next_step([]) is next_step(None) is None


def test_a_task_sent_again_drops_what_brokers_added():
    headers = {
        "task": "t",
        "compression": "application/x-gzip",
        "mine": 1,
        "celery_beat_task": True,
        "x-death": [{}],
        "x-first-death-queue": "q",
        "x-last-death-reason": "expired",
        "redelivered": True,
    }
    assert retry_headers(headers) == {"mine": 1, "celery_beat_task": True}
    assert custom_headers({"task": "t", "id": "i"}) is None
    assert custom_headers(headers)["x-death"] == [{}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values), st.dictionaries(st.text(), json_values))
def test_arguments_survive_the_trip(args, kwargs):
    sent = as_task_v2("i", "t", args, kwargs, origin="o", reply_to="q")
    assert read_task(sent, ACCEPT)[2:] == (args, kwargs, NO_EMBED)


HEADER_NAMES = st.sampled_from(["task", "id", "eta", "retries", "compression", "stamps"])


@given(st.dictionaries(HEADER_NAMES, json_values), json_values)
def test_any_json_is_read_or_refused_in_a_known_way(headers, body):
    try:
        outcome = read_task(json_message(headers, body), ACCEPT)
    except (InvalidTaskError, DecodeError) as refusal:
        outcome = str(refusal)
    assert outcome


SIGNATURES = vectors("signatures")


@pytest.mark.parametrize("vector", SIGNATURES, ids=lambda vector: vector["python"])
def test_a_signature_travels_both_ways_unchanged(vector):
    content_type, encoding, payload = dumps(vector["json"])
    assert payload.decode() == json.dumps(vector["json"])
    assert loads(payload, content_type, encoding, ACCEPT) == vector["json"]
