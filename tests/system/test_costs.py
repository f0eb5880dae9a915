"""What a task costs, counted in commands of its broker, in writes, in turns of threads, so that the clock does not
matter.
"""

import threading
from pathlib import Path

import pytest
import redis
from harness import Stage, wait_until
from proxy import Proxy

TASKS = 2000
#: Tasks that are sent and waited for one at a time.
TRIPS = 100


@pytest.mark.needs("rabbitmq")
def test_a_round_trip_over_rabbitmq_is_two_writes_each_way_and_the_thread_that_waits_reads(rabbitmq_url, tmp_path):
    """There: the task, its result with the acknowledgement. Back: the task, the result."""
    host, _, rest = rabbitmq_url.rpartition(":")
    port, _, vhost = rest.partition("/")
    others = set(threading.enumerate())
    with Proxy(int(port)) as proxy:
        stage = Stage("rabbitmq", f"{host}:{proxy.port}/{vhost}", "rpc://", tmp_path)
        try:
            stage.worker("-c", "1")

            def trip(number):
                assert stage.send("add", number, 1).get(timeout=30) == number + 1

            for number in range(10):
                trip(number)
            ours = set(threading.enumerate()) - others
            (keeper,) = (thread for thread in ours if thread.name.startswith("celery-replies"))
            sent, received, turns = proxy.sent, proxy.received, turns_of(keeper)
            for number in range(TRIPS):
                trip(number)
            assert proxy.sent - sent <= 2.3 * TRIPS
            assert proxy.received - received <= 2.3 * TRIPS
            assert turns_of(keeper) - turns < TRIPS / 2
        finally:
            stage.close()


def turns_of(thread):
    """How often a thread has waited for something."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
def test_a_worker_on_redis_takes_and_settles_in_batches(private_redis, tmp_path):
    """Claims and settlements are scripts: some tens of tasks share each. So do tasks that are sent in one call."""
    server = private_redis().url
    stage = Stage("redis", server, server, tmp_path)
    try:
        calls = [stage.app.signature("project.add", (number, 1)) for number in range(TASKS)]
        with redis.Redis.from_url(server) as client:
            results = stage.app.send_many(calls)
            assert client.info("commandstats")["cmdstat_lpush"]["calls"] <= TASKS / 100
            stage.worker("-c", "2")
            wait_until(lambda: stage.waiting() == 0, stage.waiting, 60)
            assert results[-1].get(timeout=30) == TASKS
            said = client.info("commandstats")
            scripts = said["cmdstat_evalsha"]["calls"]
            # Whose message is still ours is asked for a batch; those that a tick found running are asked one by one.
            asked = said.get("cmdstat_hexists", {"calls": 0})["calls"]
    finally:
        stage.close()
    assert scripts <= TASKS / 10, f"{scripts} scripts for {TASKS} tasks"
    assert asked <= TASKS / 4, f"{asked} messages asked for one by one, of {TASKS}"
