"""What a worker of Celery 5.7 leaves in an empty Redis when it starts, ours leaves too: peers find queues by it.

The captured commands are played back by name: what they set is compared with what our worker has set, and the greeting
that the captured worker sent to all others is sent to ours.
"""

import base64
import json
import time
from pathlib import Path

import pytest
import redis
from harness import Stage, wait_until

TRACE = Path(__file__).parents[1] / "data/wire_vectors/redis_worker_startup_trace.json"
PREFIX = "_kombu.binding"
DEADLINES = f"{PREFIX}_deadlines"
NODE = "w1@host.example"
#: Exchanges by whose bindings workers are found; those of replies and events name queues of the captured process.
EXCHANGES = ("celery", "celery.pidbox")


@pytest.fixture(scope="module")
def commands():
    return [vector["command"] for vector in json.loads(TRACE.read_text())["vectors"]]


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def worker(redis_url, client, tmp_path):
    """A worker of ours on an empty database, with the default queue."""
    stage = Stage("redis", redis_url, redis_url, tmp_path, task_default_queue="celery")
    assert not client.keys()
    yield stage.worker("-c", "1")
    stage.close()


def test_the_captured_worker_and_ours_leave_the_same_bindings(commands, worker, client):
    members = {}
    for name, *arguments in commands:
        if name == "SADD":
            key, *values = arguments
            members.setdefault(key, set()).update(value.replace(NODE, worker.node) for value in values)
    expected = {key: found for key, found in members.items() if key.split(".", 2)[2] in EXCHANGES}
    assert set(expected) == {f"{PREFIX}.celery", f"{PREFIX}_permanent.celery", f"{PREFIX}.celery.pidbox"}

    assert {key: client.smembers(key) for key in expected} == expected
    # Nothing durable for what goes away with its worker: a peer's sweep would never take it.
    assert client.keys(f"{PREFIX}_permanent.*") == [f"{PREFIX}_permanent.celery"]
    assert [client.type(key) for key in (*expected, DEADLINES)] == ["set", "set", "set", "zset"]

    lifetimes = {key[-2]: int(key[-1]) for key in commands if key[0] == "EVALSHA" and key[-2] in EXCHANGES}
    deadlines = {name: at for name, at in client.zrange(DEADLINES, 0, -1, withscores=True) if name in EXCHANGES}
    assert deadlines.keys() == lifetimes.keys() == {"celery.pidbox"}
    left = deadlines["celery.pidbox"] - time.time() * 1000
    assert lifetimes["celery.pidbox"] - 60_000 < left <= lifetimes["celery.pidbox"]


def test_the_captured_greeting_is_answered_by_ours(commands, worker, client, redis_url):
    bound = next(
        command for command in commands if command[0] == "SADD" and command[1] == f"{PREFIX}.reply.celery.pidbox"
    )
    channel, text = next(
        command[1:] for command in commands if command[0] == "PUBLISH" and command[1].endswith("celery.pidbox")
    )
    greeting = json.loads(text)
    asked = json.loads(base64.b64decode(greeting["body"]))
    assert (asked["method"], asked["arguments"]["from_node"]) == ("hello", NODE)
    greeting["headers"]["expires"] = time.time() + 60  # it was good for a second
    client.execute_command(*bound)
    database = redis_url.rpartition("/")[2]
    wait_until(lambda: client.publish(channel.replace("/10.", f"/{database}."), json.dumps(greeting)), "a listener")

    inbox = bound[2].rpartition("\x16")[2]
    _, answer = client.brpop(inbox, 10)
    envelope = json.loads(answer)
    assert envelope["headers"]["ticket"] == asked["ticket"]
    (said,) = json.loads(base64.b64decode(envelope["body"])).items()
    assert said == (worker.node, {"revoked": [], "clock": said[1]["clock"]})
