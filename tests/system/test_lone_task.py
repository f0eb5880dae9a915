"""What a task that is sent and waited for alone costs, counted in commands of its broker."""

import time

import pytest
import redis
from harness import Stage

#: Commands that a server gets for a task that is sent and waited for alone, those of scripts included.
ALONE = {
    # The claim and the settlement.
    "evalsha": 2,
    # With the claim: is there more, and the wish to be told of what comes.
    "client|caching": 1, "exists": 2,
    # Of who waits.
    "subscribe": 1, "mget": 1, "unsubscribe": 1,
    "lpush": 1, "lrange": 1,
}  # fmt: skip


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
def test_a_lone_task_on_redis_is_one_claim_and_one_settlement(private_redis, tmp_path):
    """Nothing looks twice: that there is no more is learned with the claim, and that there is news is told."""
    server, rounds = private_redis().url, 100
    stage = Stage("redis", server, server, tmp_path)
    add = stage.app.signature("project.add", (1, 1))
    try:
        stage.worker("-c", "1")
        for _ in range(5):
            assert add.delay().get(timeout=30) == 2
        with redis.Redis.from_url(server) as client:
            client.config_resetstat()
            began = time.monotonic()
            for _ in range(rounds):
                assert add.delay().get(timeout=30) == 2
            seconds = time.monotonic() - began
            stats = client.info("commandstats")
    finally:
        stage.close()
    # Leases are looked at once a second; a message that comes between a claim and its look takes one more of both.
    spare = 3 * seconds + rounds / 20
    counted = {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ALONE}
    assert all(counted[name] <= rounds * calls + spare for name, calls in ALONE.items()), counted
