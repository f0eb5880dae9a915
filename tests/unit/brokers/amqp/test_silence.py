"""Servers that say nothing, or nothing any more: every wait has a bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from celery import exceptions
from celery.brokers.amqp import Receiver, Sender
from celery.brokers.amqp.frames import FrameReader, encode_frame
from celery.brokers.amqp.methods import decode_method, encode_method
from celery.brokers.base import Publish
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

#: What a server answers to each method of a client; then it falls silent.
ANSWERS = {
    "connection.start-ok": ("connection.tune", {"frame_max": 131072, "channel_max": 10, "heartbeat": 1}),
    "connection.open": ("connection.open-ok", {}),
    "channel.open": ("channel.open-ok", {}),
    "basic.qos": ("basic.qos-ok", {}),
    "confirm.select": ("confirm.select-ok", {}),
    "basic.publish": ("connection.blocked", {"reason": "low on memory"}),
}


def frame(channel, name, arguments):
    return encode_frame(1, channel, encode_method(name, arguments))


@contextlib.contextmanager
def server(talks):
    """The URL of a server that finishes the handshake (or not even that), and never hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listening.accept()
                held.append(connected)
                if talks:
                    threading.Thread(target=answer, args=(connected,), daemon=True).start()

    def answer(connected):
        reader = FrameReader()
        with contextlib.suppress(OSError):
            connected.recv(8)
            connected.sendall(frame(0, "connection.start", {"mechanisms": "PLAIN"}))
            while data := connected.recv(65536):
                for kind, channel, payload in reader.feed(data):
                    found = ANSWERS.get(decode_method(payload)[0].name) if kind == 1 else None
                    if found:
                        connected.sendall(frame(0 if found[0].startswith("connection") else channel, *found))

    threading.Thread(target=serve, daemon=True).start()
    yield f"amqp://127.0.0.1:{listening.getsockname()[1]}//"
    listening.close()
    for connected in held:
        connected.close()


def test_a_sender_gives_up_on_a_server_that_does_not_greet():
    with server(talks=False) as url:
        started = time.monotonic()
        with pytest.raises(exceptions.OperationalError, match="127.0.0.1"):
            Sender(url, {"connect_timeout": 0.2}).length("q")
        assert time.monotonic() - started < 2


def test_a_sender_gives_up_on_a_server_that_stops_answering():
    with server(talks=True) as url:
        sender = Sender(url, {"connect_timeout": 2})
        with pytest.raises(exceptions.OperationalError, match="no answer in time"):
            sender.publish([Publish(Envelope({}, b""), "", "q", Queue("q"))], timeout=0.2)
        sender.close()


def test_a_sender_that_the_server_blocks_says_so():
    with server(talks=True) as url:
        sender = Sender(url, {"connect_timeout": 2})
        with pytest.raises(exceptions.OperationalError, match=r"blocks publishers \(low on memory\)"):
            sender.publish([Publish(Envelope({}, b""), "", "q")], confirm=True, timeout=0.2)
        sender.close()


def test_a_receiver_gives_up_on_a_server_that_does_not_greet():
    async def scenario(url):
        receiver = Receiver(url, {"connect_timeout": 0.2}, node="w1@host")
        with pytest.raises(exceptions.OperationalError, match="no answer within 0.2 s"):
            await asyncio.wait_for(receiver.open(), 2)
        await receiver.close()

    with server(talks=False) as url:
        asyncio.run(scenario(url))


def test_a_receiver_notices_missing_heartbeats():
    async def scenario(url):
        receiver = Receiver(url, {"heartbeat": 1}, node="w1@host")
        await receiver.open()
        with pytest.raises(exceptions.OperationalError, match="heartbeats"):
            await asyncio.wait_for(receiver.receive(1), 10)
        with pytest.raises(exceptions.OperationalError, match="heartbeats"):
            await receiver.settle([])
        await receiver.close()

    with server(talks=True) as url:
        asyncio.run(scenario(url))
