"""What only the embedded broker does: one file for broker and results, bells, leases among processes."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc

import pytest
from drivers import SOON, TAKEOVER, SqliteBench, eventually, ids, message, settle, take

from celery import Celery, exceptions, states
from celery.brokers.base import Publish, ResultWrite, Settlement, Verdict
from celery.brokers.topology import Queue

STOPPED_WORKER = """
import asyncio, sys
from celery.brokers.base import Settlement, Verdict
from celery.brokers.sqlite import Receiver
from celery.brokers.topology import Queue

async def main(url, queue):
    receiver = Receiver(url, {}, node="stopped@host")
    await receiver.open()
    await receiver.consume(Queue(queue))
    held = await receiver.receive(1)
    print("holding", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    refused = await receiver.settle([Settlement(one, Verdict.ACK) for one in held])
    print("refused", len(refused), flush=True)
    again = await receiver.receive(1)
    print("refused", len(await receiver.settle([Settlement(one, Verdict.ACK) for one in again])), flush=True)
    await receiver.close()

asyncio.run(main(*sys.argv[1:]))
"""

SENDING_PROCESS = """
import sys
from celery.brokers.base import Publish
from celery.brokers.sqlite import Sender
from celery.wire.envelope import Envelope
sender = Sender(sys.argv[1], {})
for number in range(int(sys.argv[3])):
    sender.publish([Publish(Envelope({"task": "w.add", "id": f"{sys.argv[4]}-{number}"}, b"[]"), "", sys.argv[2])])
"""


@pytest.fixture
def bench(sqlite_path):
    made = SqliteBench("sqlite", f"sqlite:///{sqlite_path}")
    yield made
    made.close()


@pytest.fixture
def backend(sqlite_path):
    return Celery("w", set_as_current=False, backend=f"sqlite:///{sqlite_path}").backend


def run(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=-1, stdout=-1, text=True)


def record(backend, task_id, value, state=states.SUCCESS) -> ResultWrite:
    return backend.prepare_write(task_id, value, state)


async def test_what_follows_the_result_and_the_acknowledgement_are_one_transaction(bench, backend):
    queue, then = bench.queue(), bench.queue()
    bench.send(queue, message("first"))
    receiver = bench.driver.Receiver(bench.url, {}, node="w1@host")
    assert receiver.share(backend)
    await receiver.open()
    await receiver.consume(queue)
    (held,) = await take(receiver, 1)
    follow = [Publish(message("second"), "", then.name)]
    done = Settlement(held, Verdict.ACK, follow=follow, results=[record(backend, "first", 5)])
    assert await receiver.settle([done]) == []
    assert backend.get_result("first") == 5
    assert bench.sender().length(then.name) == 1
    late = Settlement(held, Verdict.ACK, follow=follow, results=[record(backend, "late", 6)])
    assert await receiver.settle([late]) == [held]
    await receiver.close()
    assert backend.get_state("late") == states.PENDING
    assert bench.sender().length(then.name) == 1


def test_only_the_backend_on_the_same_file_is_shared(bench, backend, tmp_path):
    receiver = bench.driver.Receiver(bench.url, {}, node="w1@host")
    elsewhere = Celery("w", set_as_current=False, backend=f"sqlite:///{tmp_path}/other.db").backend
    assert receiver.share(backend) is True
    assert receiver.share(elsewhere) is False
    assert receiver.share(object()) is False


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_worker_stopped_past_its_lease_settles_nothing_and_goes_on(bench):
    queue = bench.queue()
    bench.send(queue, message("one"))
    stopped = run(STOPPED_WORKER, bench.url, queue.name)
    try:
        assert await asyncio.to_thread(stopped.stdout.readline) == "holding\n"
        stopped.send_signal(signal.SIGSTOP)
        async with bench.receiver(queue) as other:
            (taken,) = await take(other, 1, within=TAKEOVER)
            assert (ids([taken]), taken.failures) == (["one"], 1)
            stopped.send_signal(signal.SIGCONT)
            stopped.stdin.write("\n")
            stopped.stdin.flush()
            assert await asyncio.to_thread(stopped.stdout.readline) == "refused 1\n"
            assert await settle(other, [taken]) == []
        bench.send(queue, message("two"))
        assert await asyncio.to_thread(stopped.stdout.readline) == "refused 0\n"
        assert await asyncio.to_thread(stopped.wait, SOON) == 0
    finally:
        stopped.kill()
        stopped.wait()
        stopped.stdin.close()
        stopped.stdout.close()
    assert bench.sender().length(queue.name) == 0


async def test_processes_that_send_one_by_one_disturb_no_one(bench):
    queue = bench.queue()
    async with bench.receiver(queue) as receiver:
        processes = [run(SENDING_PROCESS, bench.url, queue.name, "300", str(number)) for number in range(3)]
        got = await take(receiver, 900, within=30)
        assert await settle(receiver, got) == []
        for process in processes:
            await asyncio.to_thread(process.communicate, timeout=SOON)
        assert [process.returncode for process in processes] == [0, 0, 0]
    for number in range(3):
        own = [name for name in ids(got) if name.startswith(f"{number}-")]
        assert own == [f"{number}-{index}" for index in range(300)]


async def test_a_receiver_without_inotify_finds_messages_by_looking(bench, monkeypatch):
    queue = bench.queue()
    monkeypatch.setattr(sys, "platform", "plan9")
    async with bench.receiver(queue) as receiver:
        monkeypatch.undo()
        waiting = asyncio.create_task(take(receiver, 1))
        await asyncio.to_thread(bench.send, queue, message("found"))
        began = time.monotonic()
        assert ids(await waiting) == ["found"]
        assert time.monotonic() - began < 0.5


async def test_an_idle_receiver_rests(bench):
    async with bench.receiver(bench.queue()) as receiver:
        waiting = asyncio.create_task(receiver.receive(1))
        began = time.process_time()
        await asyncio.wait([waiting], timeout=2)
        assert time.process_time() - began < 0.1
        waiting.cancel()


async def test_a_message_sent_for_later_wakes_a_waiting_receiver_at_its_time(bench):
    queue = bench.queue()
    async with bench.receiver(queue) as receiver:
        waiting = asyncio.create_task(take(receiver, 1))
        due = time.time() + 0.3
        await asyncio.to_thread(bench.sender().publish, [Publish(message("later"), "", queue.name, until=due)])
        assert bench.sender().length(queue.name) == 0
        assert ids(await waiting) == ["later"]
        assert 0 <= time.time() - due < 0.2


async def test_a_queue_that_nobody_reads_expires_with_its_messages_and_bindings(bench, sqlite_path):
    kept = bench.queue()
    gone = bench.queue(expires=0.5)
    bench.send(kept, message())
    bench.send(gone, message())
    async with bench.receiver():
        await eventually(lambda: bench.sender().length(gone.name) == 0)
    assert bench.sender().length(kept.name) == 1
    with sqlite3.connect(sqlite_path) as file:
        assert file.execute("SELECT count(*) FROM message").fetchone() == (1,)
    file.close()


async def test_refused_messages_can_be_consumed_from_the_dead_queue(bench):
    queue = bench.queue()
    bench.send(queue, message("bad"))
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 1), Verdict.DEAD, reason="no such task")
        (letter,) = bench.sender().dead_letters(queue.name)
        assert (letter.reason, letter.queue) == ("no such task", queue.name)
        assert abs(letter.time - time.time()) < SOON
        await receiver.consume(Queue(f"{queue.name}.dead"))
        again = await take(receiver, 1)
        assert ids(again) == ["bad"]
        assert await settle(receiver, again) == []
    assert bench.sender().dead_letters(queue.name) == []


async def test_the_dead_queue_keeps_the_latest_ten_thousand(bench):
    queue = bench.queue()
    bench.send(queue, *(message(str(number)) for number in range(10_005)))
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 10_005, limit=10_005), Verdict.DEAD)
    assert bench.sender().length(f"{queue.name}.dead") == 10_000
    assert bench.sender().dead_letters(queue.name, 1)[0].message.headers["id"] == "10004"


async def test_a_receiver_that_cannot_have_the_file_says_so_and_gives_back_what_it_held(bench, sqlite_path):
    queue = bench.queue()
    bench.send(queue, message("one"), message("two"))
    async with bench.receiver(queue, options={"busy_timeout": 0.1}) as receiver:
        await take(receiver, 1)
        other = sqlite3.connect(sqlite_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(exceptions.OperationalError, match=f"{sqlite_path} stayed locked"):
            await take(receiver, 1)
        with pytest.raises(exceptions.OperationalError, match=f"{sqlite_path} stayed locked"):
            await receiver.receive(1)
        other.close()
    async with bench.receiver(queue) as receiver:
        assert ids(await take(receiver, 2)) == ["one", "two"]


async def test_expired_results_are_deleted_by_a_working_receiver(bench, backend, sqlite_path):
    backend.expires = 0.1
    backend.store_result("old", 1, states.SUCCESS)

    def stored():
        with sqlite3.connect(sqlite_path) as file:
            (count,) = file.execute("SELECT count(*) FROM result").fetchone()
        file.close()
        return count

    assert stored() == 1
    async with bench.receiver(bench.queue()):
        await eventually(lambda: stored() == 0)


def large_batch(count, queue):
    body = b"x" * 100_000
    return [Publish(message(str(number), body), "", queue) for number in range(count)]


async def test_of_a_long_batch_a_little_is_in_memory_at_a_time(bench):
    queue, sender = bench.queue(), bench.sender()
    sender.publish(large_batch(2, "other"))
    batch = large_batch(100, queue.name)
    tracemalloc.start()
    try:
        sender.publish(batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    async with bench.receiver(queue) as receiver:
        assert ids(await take(receiver, 100)) == [str(number) for number in range(100)]


def test_nothing_of_a_long_batch_is_sent_when_a_message_cannot_be_written(bench):
    queue, sender = bench.queue(), bench.sender()
    with pytest.raises(TypeError, match="object"):
        sender.publish([*large_batch(50, queue.name), Publish(message(headers={"x": object()}), "", queue.name)])
    assert sender.length(queue.name) == 0
