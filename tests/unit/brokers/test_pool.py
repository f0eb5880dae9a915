"""The pool over senders that only record what they were asked."""

import asyncio
import os
import threading
import time

import pytest

from celery.brokers.base import Publish
from celery.brokers.pool import SenderPool
from celery.exceptions import OperationalError
from celery.wire.envelope import Envelope


class Recorder:
    """A Sender that can be held up and made to fail."""

    made: list["Recorder"]

    def __init__(self):
        self.calls = []
        self.closed = 0
        self.pid = os.getpid()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.refuses = {}

    def publish(self, batch, *, confirm=False, timeout=None):
        self.entered.set()
        assert self.gate.wait(10)
        for one in batch:
            if one.routing_key in self.refuses:
                raise self.refuses[one.routing_key]
        self.calls.append(([one.routing_key for one in batch], confirm))

    def close(self):
        self.closed += 1


@pytest.fixture
def made():
    return []


@pytest.fixture
def pool(made):
    pools = []

    def build(**options):
        def make():
            made.append(Recorder())
            return made[-1]

        pools.append(SenderPool(make, **options))
        return pools[-1]

    yield build
    for one in pools:
        one.close()


def publish(key):
    return Publish(Envelope({}, b""), "", key)


def test_nothing_is_made_before_it_is_used(pool, made):
    pool(limit=3)
    assert made == []


def test_the_sender_that_came_back_last_is_lent_next(pool, made):
    one = pool(limit=3)
    with one.lend() as first:
        with one.lend() as second:
            assert first is not second
        with one.lend() as again:
            assert again is second
    with one.lend() as last:
        assert last is first
    assert len(made) == 2


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_each_loan_has_its_own_sender_and_closes_it(pool, made, limit):
    one = pool(limit=limit)
    for _ in range(2):
        with one.lend() as sender:
            assert sender.closed == 0
        assert sender.closed == 1
    assert len(made) == 2


def test_an_exhausted_pool_says_which_settings_to_change(pool):
    one = pool(limit=2, acquire_timeout=0.05)
    with one.lend(), one.lend():
        with pytest.raises(OperationalError, match=r"all 2 .*broker_pool_limit.*broker_pool_acquire_timeout"):
            with one.lend():
                pytest.fail("there is no third sender")


def test_a_waiting_thread_gets_the_sender_that_comes_back(pool, made):
    one = pool(limit=1, acquire_timeout=10.0)
    got = []

    def borrow():
        with one.lend() as sender:
            got.append(sender)

    with one.lend() as sender:
        threads = [threading.Thread(target=borrow) for _ in range(3)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(10)
    assert got == [sender] * 3
    assert len(made) == 1


def test_no_sender_is_lent_to_two_threads(pool):
    one = pool(limit=2, acquire_timeout=10.0)
    using, clashes = set(), []

    def borrow():
        for _ in range(300):
            with one.lend() as sender:
                if id(sender) in using:
                    clashes.append(sender)
                using.add(id(sender))
                using.discard(id(sender))

    threads = [threading.Thread(target=borrow) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert clashes == []


def test_a_loan_that_ends_by_an_error_closes_its_sender_and_keeps_it(pool, made):
    one = pool(limit=1)
    with pytest.raises(KeyboardInterrupt), one.lend() as sender:
        raise KeyboardInterrupt
    assert sender.closed == 1
    with one.lend() as again:
        assert again is sender
    assert len(made) == 1


def test_a_sender_that_cannot_be_made_leaves_its_place_to_another():
    made = []

    def make():
        if not made:
            made.append(None)
            raise OperationalError("no")
        return Recorder()

    pool = SenderPool(make, limit=1, acquire_timeout=0.05)
    with pytest.raises(OperationalError), pool.lend():
        pytest.fail("it cannot be made")
    with pool.lend() as sender:
        assert isinstance(sender, Recorder)
    pool.close()


def test_closing_closes_idle_senders_now_and_lent_ones_when_they_come_back(pool):
    one = pool(limit=2)
    with one.lend() as lent:
        with one.lend() as idle:
            pass
        one.close()
        assert (idle.closed, lent.closed) == (1, 0)
    assert lent.closed == 1
    with one.lend() as fresh:
        assert fresh not in {idle, lent}


def test_a_forked_process_neither_uses_nor_closes_what_it_inherited(pool):
    one = pool(limit=2)
    with one.lend() as lent:
        with one.lend() as idle:
            pass
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with one.lend() as own:
                    if own.pid == os.getpid() and own not in {idle, lent}:
                        status = 2
                one.close()
                if (idle.closed, lent.closed) == (0, 0) and own.closed == 1:
                    status -= 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    with one.lend() as again:
        assert again is lent


# -- For coroutines ----------------------------------------------------------------------------------------------------


def test_what_coroutines_queue_while_one_publishes_goes_in_one_batch(pool, made):
    async def scenario():
        one = pool(limit=1)
        await one.run(lambda sender: sender.gate.clear())
        (sender,) = made
        tasks = [asyncio.create_task(one.apublish([publish("first")]))]
        await asyncio.to_thread(sender.entered.wait, 10)
        tasks += [asyncio.create_task(one.apublish([publish(str(number))])) for number in range(20)]
        await asyncio.sleep(0)
        sender.gate.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert sender.calls == [(["first"], False), ([str(number) for number in range(20)], False)]

    asyncio.run(scenario())


def test_confirmed_and_unconfirmed_messages_keep_their_order_in_separate_calls(pool, made):
    async def scenario():
        one = pool(limit=1)
        await one.run(lambda sender: sender.gate.clear())
        (sender,) = made
        tasks = [asyncio.create_task(one.apublish([publish("first")]))]
        await asyncio.to_thread(sender.entered.wait, 10)
        plan = [("a", True), ("b", True), ("c", False), ("d", True)]
        tasks += [asyncio.create_task(one.apublish([publish(key)], confirm=confirm)) for key, confirm in plan]
        tasks.append(asyncio.create_task(one.run(lambda sender: sender.calls.append("run"))))
        await asyncio.sleep(0)
        sender.gate.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert sender.calls[1:] == [(["a", "b"], True), (["c"], False), (["d"], True), "run"]

    asyncio.run(scenario())


def test_a_cancelled_coroutine_sends_nothing_when_it_was_not_taken(pool, made):
    async def scenario():
        one = pool(limit=1)
        await one.run(lambda sender: sender.gate.clear())
        (sender,) = made
        first = asyncio.create_task(one.apublish([publish("first")]))
        await asyncio.to_thread(sender.entered.wait, 10)
        cancelled, kept = (asyncio.create_task(one.apublish([publish(key)])) for key in ("cancelled", "kept"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        sender.gate.set()
        await asyncio.wait_for(asyncio.gather(first, kept), 10)
        assert [keys for keys, _ in sender.calls] == [["first"], ["kept"]]
        assert cancelled.cancelled()

    asyncio.run(scenario())


def test_a_lost_connection_is_told_to_all_of_the_batch_and_a_bad_message_only_to_its_sender(pool, made):
    async def scenario():
        one = pool(limit=1)
        await one.run(lambda sender: sender.gate.clear())
        (sender,) = made
        sender.refuses = {"lost": OperationalError("gone"), "bad": TypeError("no header")}

        async def together(*keys):
            sender.entered.clear()
            sender.gate.clear()
            first = asyncio.create_task(one.apublish([publish("first")]))
            await asyncio.to_thread(sender.entered.wait, 10)
            tasks = [asyncio.create_task(one.apublish([publish(key)])) for key in keys]
            await asyncio.sleep(0)
            sender.gate.set()
            await first
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

        assert [type(error) for error in await together("a", "lost", "b")] == [OperationalError] * 3
        assert [type(error) for error in await together("a", "bad", "b")] == [type(None), TypeError, type(None)]

    asyncio.run(scenario())


def test_loops_of_several_threads_share_the_courier(pool, made):
    one = pool(limit=1)

    def loop(thread):
        async def scenario():
            await asyncio.gather(*(one.apublish([publish(f"{thread}-{number}")]) for number in range(50)))

        asyncio.run(asyncio.wait_for(scenario(), 20))

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sent = [key for keys, _ in made[0].calls for key in keys]
    assert len(made) == 1
    for thread in range(3):
        assert [key for key in sent if key.startswith(f"{thread}-")] == [f"{thread}-{number}" for number in range(50)]


def test_run_returns_the_value_and_raises_the_error(pool):
    async def scenario():
        one = pool(limit=1)
        assert await one.run(lambda sender: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await one.run(lambda sender: 1 // 0)

    asyncio.run(scenario())


def test_closing_sends_what_was_handed_in_and_ends_the_thread(pool, made):
    async def scenario():
        one = pool(limit=1)
        tasks = [asyncio.create_task(one.apublish([publish(str(number))])) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(one.close)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert made[0].closed == 1
        assert [key for keys, _ in made[0].calls for key in keys] == [str(number) for number in range(5)]

    asyncio.run(scenario())
    deadline = time.monotonic() + 10
    while any(thread.name == "celery-courier" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forked_process_has_a_courier_of_its_own(pool, made):
    one = pool(limit=1)
    asyncio.run(one.apublish([publish("parent")]))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(asyncio.wait_for(one.apublish([publish("child")]), 10))
            if made[-1].pid == os.getpid() and made[0].calls == [(["parent"], False)]:
                status = 0
            one.close()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(one.apublish([publish("again")]))
    assert len(made) == 1
