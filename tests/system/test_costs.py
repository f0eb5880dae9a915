"""What a task costs a worker, counted in commands of its broker, so that the clock does not matter."""

import pytest
import redis
from harness import Stage, wait_until

TASKS = 2000


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
            scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    finally:
        stage.close()
    assert scripts <= TASKS / 5, f"{scripts} scripts for {TASKS} tasks"
