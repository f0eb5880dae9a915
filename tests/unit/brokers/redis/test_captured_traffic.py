"""Messages, records, keys and bindings as a 5.7 system wrote them, against ours (wire.md section 8)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from celery.brokers.redis.envelope import encode, read_record
from celery.brokers.redis.keys import Keys
from celery.brokers.redis.routing import Routes
from celery.brokers.topology import Exchange, Queue
from celery.wire.sealed import open_text as decode

VECTORS = Path(__file__).parents[3] / "data" / "wire_vectors"


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text())["vectors"]


def captured():
    for file in ("task_messages_redis", "task_messages_worker_published_redis"):
        for vector in vectors(file):
            for message in vector.get("messages", []):
                yield pytest.param(message, id=f"{file}:{vector['name']}")


@pytest.mark.parametrize("message", list(captured()))
def test_a_captured_message_is_read_and_written_again_with_the_same_fields(message):
    wire = json.loads(message["raw"])
    read = decode(message["raw"].encode())
    assert read.envelope.body == base64.b64decode(wire["body"])
    assert (read.exchange, read.routing_key) == tuple(wire["properties"]["delivery_info"].values())[:2]
    again = json.loads(encode(read.envelope, read.exchange, read.routing_key))
    assert again["properties"].pop("delivery_tag") != wire["properties"].pop("delivery_tag")
    assert again == wire


@pytest.mark.parametrize("message", list(captured()))
def test_a_captured_message_lies_in_the_list_that_we_would_choose(message):
    properties = json.loads(message["raw"])["properties"]
    keys = Keys({})
    assert keys.lane(properties["delivery_info"]["routing_key"], keys.step(properties["priority"])) == message["key"]


def test_captured_records_are_cut_apart():
    [running] = [vector for vector in vectors("redis_layout") if vector["moment"] == "running"]
    for value in running["keys"]["unacked"]["value"].values():
        record = read_record(value.encode())
        assert value.startswith("[" + record.text.decode())
        assert (record.exchange, record.routing_key) == tuple(json.loads(value)[1:])


@pytest.mark.parametrize(
    "queue",
    [
        Queue("celery", Exchange("celery"), "celery"),
        Queue("extra", Exchange("extra"), "extra"),
        Queue("w1@host.example.celery.pidbox", Exchange("celery.pidbox", "fanout"), ""),
        Queue("celeryev.158df14c-4d45-480d-985d-bf8a38cd4dc8", Exchange("celeryev", "topic"), "worker.#"),
    ],
    ids=lambda queue: queue.name,
)
def test_our_bindings_are_the_captured_ones(queue):
    [running] = [vector for vector in vectors("redis_layout") if vector["moment"] == "running"]
    routes = Routes(Keys({}))
    routes.learn(queue)
    [(exchange, member)] = routes.members(queue)
    assert member in running["keys"][f"_kombu.binding.{exchange}"]["value"]
