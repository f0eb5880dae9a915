"""Calls from coroutines, as a web server makes them: many at once, on any loop, while the loop goes on turning."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from celery import exceptions
from celery.result import ResultSet

#: For everything that a test awaits, in seconds.
SOON = 20.0
#: How late half of the coroutines may wake, in seconds, beside the time that the machine gave to other processes; one
#: blocking call would do it to most.
LATE = 0.01
#: And nineteen of twenty: a burst of calls at one turn of the loop makes a few late, a blocked loop all.
LATEST = 0.05


@pytest.fixture
def echo(shared):
    """The project's task `echo`, as its callers know it."""
    return shared.app.tasks.get("project.echo") or shared.app.task(name="project.echo", shared=False)(
        lambda value: value
    )


def kept_waiting():
    """Seconds that this thread could have run and another one had the processor; 0.0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


@asynccontextmanager
async def heartbeat():
    """Notes how late a coroutine wakes that sleeps a millisecond at a time."""
    late = []

    async def beat():
        while True:
            began, waited = time.perf_counter(), kept_waiting()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001 - (kept_waiting() - waited))

    heart = asyncio.create_task(beat())
    try:
        yield late
    finally:
        heart.cancel()


def test_two_hundred_requests_at_once_do_not_block_the_loop(shared, echo):
    async def request(number):
        await asyncio.sleep(max(number, 0) / 1000)  # they come within a fifth of a second
        result = await echo.adelay(number)
        return await result.aget(timeout=SOON)

    async def serve():
        await request(-1)  # connections are made
        async with heartbeat() as late:
            answers = await asyncio.gather(*(request(number) for number in range(200)))
        return answers, late

    answers, late = asyncio.run(serve())
    assert answers == list(range(200))
    assert sorted(late)[len(late) // 2] < LATE
    assert sorted(late)[len(late) * 19 // 20] < LATEST


def test_coroutines_have_the_options_of_other_callers(shared, echo):
    async def calls():
        first = await echo.aapply_async((1,), task_id=shared.key(), countdown=0.2, headers={"mine": 1})
        second = await shared.app.asend_task("project.echo", ("two",), ignore_result=False)
        return [await first.aget(timeout=SOON), await second.aget(timeout=SOON)]

    assert asyncio.run(calls()) == [1, "two"]


def test_errors_are_raised_where_they_are_awaited(shared, echo):
    async def calls():
        with pytest.raises(exceptions.EncodeError):
            await echo.adelay(object())
        with pytest.raises(TypeError):
            await echo.adelay(1, 2, 3)
        with pytest.raises(exceptions.NotRegistered):
            await (await shared.app.asend_task("project.nowhere")).aget(timeout=SOON)

    asyncio.run(calls())


def test_results_are_iterated_as_they_come(shared, echo):
    async def collect():
        results = ResultSet([await echo.adelay(number) for number in range(20)], app=shared.app)
        return [await result.aget() async for result in results]

    assert sorted(asyncio.run(collect())) == list(range(20))


def test_waiting_can_end_before_the_result_comes(shared):
    key = shared.key()

    async def wait():
        result = await shared.app.asend_task("project.block", (key,))
        with pytest.raises(exceptions.TimeoutError):
            await result.aget(timeout=0.05)
        waiting = asyncio.create_task(result.aget())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        shared.open_gate(key)
        return await result.aget(timeout=SOON)

    assert isinstance(asyncio.run(wait()), int)


def test_one_application_serves_several_loops(shared, echo):
    def server(numbers, answers):
        async def serve():
            results = await asyncio.gather(*(echo.adelay(number) for number in numbers))
            return await asyncio.gather(*(result.aget(timeout=SOON) for result in results))

        answers += asyncio.run(serve())

    for _ in range(2):  # the second time, the loops of the first are closed
        answers = []
        threads = [threading.Thread(target=server, args=(range(at, at + 10), answers)) for at in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        assert sorted(answers) == list(range(30))


def test_a_forked_server_calls_over_connections_of_its_own(shared, echo):
    async def call(value):
        return await (await echo.adelay(value)).aget(timeout=SOON)

    assert asyncio.run(call(1)) == 1
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if asyncio.run(call(2)) == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asyncio.run(call(3)) == 3


def test_a_call_that_is_cancelled_leaves_the_application_usable(shared, echo):
    async def calls():
        calling = [asyncio.create_task(echo.adelay(number)) for number in range(50)]
        await asyncio.sleep(0)
        for call in calling:
            call.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        return await (await echo.adelay("after")).aget(timeout=SOON)

    assert asyncio.run(calls()) == "after"
