"""A chord in Redis is kept as Celery 5.7.0 keeps it (wire.md 4.5), so that workers of both count together."""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path

import pytest

from celery import Celery
from celery.brokers.base import ChordPart, ChordStart
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.scripts import load

VECTOR = Path(__file__).parents[2] / "data" / "wire_vectors" / "chord_redis_trace.json"
#: Those that change keys, of what was captured.
WRITES = {"SET", "DEL", "UNLINK", "ZADD", "RPUSH", "SADD", "EXPIRE", "INCR"}


@pytest.fixture
def backend(redis_url):
    app = Celery("chords", broker="memory://", backend=redis_url, set_as_current=False)
    yield app.backend
    app.close()


@pytest.fixture
def monitor(backend):
    """A connection that sees every command."""
    link = Connection(backend.address)
    link.call("MONITOR")
    yield link
    link.close()


def words_of(line):
    """The words of a command, as MONITOR shows it."""
    return [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', line.partition("] ")[2])]


def written(monitor, backend, token=None):
    """What has been done to keys of chords since the last question, by us and by scripts."""
    end = uuid.uuid4().hex
    backend._call("ECHO", end)
    commands = []
    while end not in (line := monitor.read(5).decode(errors="replace")):
        if f" [{backend.address.database} " in line:  # all databases are shown
            commands.append(words_of(line))
    return writes_of(commands, token)


def writes_of(commands, token):
    """Commands that change keys of chords. Those of one step are in no order, and a token is called so."""
    writes = [
        command for command in commands if command and command[0] in WRITES and "celery-taskset-meta-" in command[1]
    ]
    # UNLINK is a DEL that does not hold others up.
    called = {token: "token", "UNLINK": "DEL"}
    return sorted([called.get(word, word) for word in command] for command in writes)


def test_what_is_written_is_what_5_7_writes(backend, monitor):
    commands = [entry["command"] for entry in json.loads(VECTOR.read_text())["vectors"]]
    scripts = [position for position, command in enumerate(commands) if command[0] == "EVALSHA"]
    # Each script is in the capture twice: when it was not known, and when it was loaded. The second part was known.
    first, _, second, hold, _, close, _ = scripts
    begin = next(position for position, command in enumerate(commands) if command[0] == "DEL")
    token = commands[second][-1]
    expected = [
        writes_of(commands[start:end], token)
        for start, end in ((begin, first), (first, second), (second, hold), (hold, close), (close, None))
    ]
    prefix, group_id = "celery-taskset-meta-", commands[begin][1][20:-2]
    parts = [
        ChordPart(group_id, command[9], int(command[12]), "SUCCESS", command[10].encode())
        for command in (commands[first], commands[second])
    ]
    book = backend.chords

    book.begin([ChordStart(group_id, 2)])
    assert written(monitor, backend) == expected[0]
    assert book.add(parts[:1]) == []
    assert written(monitor, backend) == expected[1]
    [claim] = book.add(parts[1:])
    assert written(monitor, backend, claim.token) == expected[2]
    assert [member.value for member in book.members(group_id)] == [2, 4]
    assert book.hold(claim)
    assert written(monitor, backend, claim.token) == expected[3]
    book.close(claim)
    assert written(monitor, backend, claim.token) == expected[4]
    assert backend._call("KEYS", "*") == [f"{prefix}{group_id}.c".encode()]


@pytest.mark.parametrize(("ordered", "kind"), [(True, b"zset"), (False, b"list")])
def test_parts_are_kept_in_order_or_as_they_come(redis_url, ordered, kind):
    app = Celery("chords", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.result_backend_transport_options = {"result_chord_ordered": ordered, "global_keyprefix": "mine"}
    try:
        book, group_id = app.backend.chords, str(uuid.uuid4())
        book.begin([ChordStart(group_id, 3)])
        parts = [
            ChordPart(group_id, f"t{index}", index, "SUCCESS", json.dumps([1, f"t{index}", "SUCCESS", index]).encode())
            for index in (2, 0, 1)
        ]
        [claim] = book.add(parts)
        assert app.backend._call("TYPE", f"mine_celery-taskset-meta-{group_id}.j") == kind
        assert [member.value for member in book.members(group_id)] == ([0, 1, 2] if ordered else [2, 0, 1])
        book.close(claim)
        assert len(app.backend._call("KEYS", "*")) == 1
    finally:
        app.close()


def test_a_caller_who_heard_nothing_of_its_claim_asks_again_and_has_it(backend):
    """What is sent again because a connection failed carries the tokens of the first time."""
    book, group_id = backend.chords, str(uuid.uuid4())
    book.begin([ChordStart(group_id, 1)])
    key = f"celery-taskset-meta-{group_id}"
    arguments = ("1", 60, 60, 6, key, "t", "0", b'[1, "t", "SUCCESS", 1]', "mine")
    script = load("chord_rules", "chord_add")
    assert backend._run(script, arguments) == backend._run(script, arguments) == [0, b"mine"]


def test_bookkeeping_without_an_end_stays(redis_url):
    app = Celery("chords", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.result_chord_expires = 0
    try:
        book, group_id = app.backend.chords, str(uuid.uuid4())
        book.begin([ChordStart(group_id, 2)])
        book.add([ChordPart(group_id, "t", 0, "SUCCESS", b'[1, "t", "SUCCESS", 1]')])
        book.extend(group_id)
        ttls = {key: app.backend._call("TTL", key) for key in app.backend._call("KEYS", "*")}
        assert len(ttls) == 4
        assert set(ttls.values()) == {-1}
    finally:
        app.close()


@pytest.mark.parametrize(
    "settings",
    [{"result_compression": "zlib"}, {"result_serializer": "pickle"}, {"result_serializer": "yaml"}],
    ids=lambda settings: "".join(settings.values()),
)
def test_parts_have_the_form_of_records(redis_url, settings):
    """wire.md 4.4: packed and written as results are, which the receiver then leaves to the book."""
    app = Celery("chords", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.update(settings, accept_content=["json", "pickle", "yaml"])
    try:
        backend, group_id = app.backend, str(uuid.uuid4())
        backend.chords.begin([ChordStart(group_id, 2)])
        assert backend.shared_store is None
        states = ("SUCCESS", "FAILURE")
        for index, (state, value) in enumerate(zip(states, ({"a": [1]}, ValueError("boom")), strict=True)):
            payload = backend.encode([1, f"t{index}", state, backend.encode_result(value, state)])
            claims = backend.chords.add([ChordPart(group_id, f"t{index}", index, state, payload)])
        assert len(claims) == 1
        good, bad = backend.chords.members(group_id)
        assert good.value == {"a": [1]}
        assert repr(backend.exception_to_python(bad.value)) == "ValueError('boom')"
    finally:
        app.close()


def test_a_chord_of_a_silent_producer_is_looked_for_again_as_soon_as_the_claim_of_another_ends(backend):
    book, group_id = backend.chords, str(uuid.uuid4())
    book.open(group_id, b'{"task": "w.xsum"}', 0.1)
    backend._call("SET", f"celery-taskset-meta-{group_id}.c", "another", "PX", 700)
    deadline = time.monotonic() + 4  # a claim lasts for six seconds
    while not (claims := book.abandoned()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [claim.part.group_id for claim in claims] == [group_id]
