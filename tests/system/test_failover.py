"""Several broker URLs: whoever cannot reach one goes to the next, and goes on there (SET-013, ROUTE-038).

What a server holds stays with it until somebody comes back to it: nothing that a server has confirmed is lost.
"""

import signal
import sys
import time
from pathlib import Path

import pytest
import redis
from harness import Census, Stage, wait_until

from celery import Celery

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import free_port  # noqa: E402  found through the line above

#: Of senders here and in the worker; as many attempts as a server takes to start.
PATIENT = {"max_retries": 20, "interval_step": 0.1}


@pytest.fixture
def make_stage(tmp_path):
    """A function that makes a stage on these brokers, with results in a server or in a file."""
    made = []

    def make(urls, backend=None) -> Stage:
        file = f"sqlite:///{tmp_path / 'celery.sqlite'}"
        stage = Stage(
            "several",
            urls[0],
            backend or file,
            tmp_path,
            broker_url=urls,
            task_publish_retry_policy=PATIENT,
            broker_transport_options={"confirm_publish": True},
        )
        made.append(stage)
        return stage

    yield make
    for stage in made:
        stage.close()


@pytest.mark.parametrize("form", ["a list", "one text"])
def test_the_first_server_is_away_from_the_start(make_stage, redis_url, form):
    urls = [f"redis://127.0.0.1:{free_port()}/0", redis_url]
    stage = make_stage(urls if form == "a list" else ";".join(urls), backend=redis_url)
    worker = stage.worker("-c", "1")
    assert "Will retry using next failover." in worker.said()
    assert "Trying again in" not in worker.said()
    assert stage.send("add", 2, 3).get(timeout=10) == 5
    assert stage.app.control.ping([worker.node], timeout=5) == [{worker.node: {"ok": "pong"}}]
    assert worker.stop() == 0


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
    ]
)
def first(request):
    """A server that can be killed."""
    return request.getfixturevalue(f"private_{request.param}")()


@pytest.fixture
def stage(first, make_stage, request):
    """A stage on it, and then on the shared one of the same kind; Redis keeps the results too."""
    second = request.getfixturevalue(f"{first.service}_url")
    return make_stage([first.url, second], backend=second if first.service == "redis" else None)


def test_the_server_in_use_dies(first, stage):
    worker, census = stage.worker("-c", "3"), Census(stage)
    running = {}
    for task in ("block_late", "block_tracked"):
        key = stage.key()
        follower = stage.app.signature("project.record", (f"after-{key}",), immutable=True)
        running[key] = stage.send(task, key, link=follower)
        stage.ledger.wait("start", key)
    tracked = running[key]
    wait_until(lambda: tracked.state == "STARTED", lambda: tracked.state)
    ended = stage.send("record", "before")
    assert ended.get(timeout=10) == "before"

    first.kill()
    census.send("nap_late", 40, 0.01)
    late = stage.send("record", "late", countdown=1)
    early, *others = running
    stage.open_gate(early)  # most likely while nobody is connected
    census.wait_none_lost(20)
    for key in others:
        stage.open_gate(key)
    for key, result in running.items():
        stage.ledger.wait("ran", f"after-{key}")
        assert result.get(timeout=10) == key
    assert late.get(timeout=10) == "late"
    assert not census.twice()
    assert stage.app.control.ping([worker.node], timeout=5) == [{worker.node: {"ok": "pong"}}]
    assert worker.stop() == 0


def test_whoever_comes_back_to_a_server_finds_what_it_has_confirmed(private_redis, make_stage):
    first, second = private_redis(), private_redis()
    stage = make_stage([first.url, second.url])
    worker, census, running = stage.worker("-c", "3"), Census(stage), stage.key()
    tracked = stage.send("block_tracked", running)
    wait_until(lambda: tracked.state == "STARTED", lambda: tracked.state)
    # Three seconds of work, so that some is left, however long sending takes.
    census.send("nap_late", 60, 0.1)
    stage.ledger.wait("end", census.keys[10])
    first.kill()
    there = census.send("nap_late", 20, 0.02)
    wait_until(lambda: not set(there) & set(census.lost()), "the end of what the second server holds")
    assert census.lost()
    stage.open_gate(running)
    assert tracked.get(timeout=10) == running
    first.start()
    second.kill()
    census.send("nap_late", 20, 0.02)
    census.wait_none_lost(30)
    # At most what was running, or had ended while its acknowledgement was on the way.
    assert len(census.twice()) <= 2 * 2
    assert worker.stop() == 0
    # Nobody is told that the first server's worker died over a task that has ended.
    with redis.Redis.from_url(first.url) as client:
        assert not client.keys("celeriac.started.*")


def leases(server):
    """Workers at a Redis, and when they count as dead."""
    with redis.Redis.from_url(server.url) as client:
        return {name.decode(): score for name, score in client.zrange("celeriac.workers", 0, -1, withscores=True)}


def long_ago(server):
    """As if the server had been away for longer than any lease."""
    with redis.Redis.from_url(server.url) as client:
        client.zadd("celeriac.workers", dict.fromkeys(leases(server), 1.0))


def kept_as_started(server):
    """By whom, at a Redis."""
    with redis.Redis.from_url(server.url) as client:
        return [key.decode().removeprefix("celeriac.started.") for key in client.keys("celeriac.started.*")]


@pytest.mark.parametrize("comes_first", ["the one that left", "another one"])
def test_what_a_worker_took_to_the_next_server_is_not_lost_to_those_at_the_first(
    private_redis, make_stage, comes_first
):
    first, second = private_redis(), private_redis()
    stage = make_stage([first.url, second.url])
    worker, running, later = stage.worker("-c", "2"), stage.key(), stage.key()
    tracked = stage.send("block_tracked", running)
    wait_until(lambda: tracked.state == "STARTED", lambda: tracked.state)
    wait_until(lambda: kept_as_started(first), "the early acknowledgement")
    first.kill()
    stage.send("record", later)
    stage.ledger.wait("ran", later)
    if comes_first == "another one":
        worker.tell(signal.SIGSTOP)
    first.start()
    if comes_first == "another one":
        long_ago(first)
    else:
        worker.wait_said("Back at redis")
    other, there = stage.worker("-c", "1", broker_url=first.url), stage.key()
    Celery(broker=first.url, set_as_current=False).send_task("project.record", (there,), queue=stage.queue)
    stage.ledger.wait("ran", there)
    worker.tell(signal.SIGCONT)
    # Its lease there runs again, and what it started is under it.
    now = time.time()
    wait_until(lambda: any(leases(first).get(name, 0) > now for name in kept_as_started(first)), "a lease")
    time.sleep(1.5)  # the other one looks once a second
    assert tracked.state == "STARTED"
    assert kept_as_started(first)
    stage.open_gate(running)
    assert tracked.get(timeout=10) == running
    wait_until(lambda: not kept_as_started(first), "the end of what is kept")
    assert "is gone" not in other.said()
    assert (worker.stop(), other.stop()) == (0, 0)


def test_what_runs_on_while_a_server_is_away_for_long_is_not_lost_to_the_first_who_comes_back(
    private_redis, make_stage, redis_url
):
    server = private_redis()
    stage = make_stage([server.url], backend=redis_url)
    worker, running = stage.worker("-c", "1"), stage.key()
    tracked = stage.send("block_tracked", running)
    wait_until(lambda: tracked.state == "STARTED", lambda: tracked.state)
    wait_until(lambda: kept_as_started(server), "the early acknowledgement")
    server.kill()
    worker.wait_said("Connection to broker lost")
    worker.tell(signal.SIGSTOP)
    server.start()
    long_ago(server)
    other, there = stage.worker("-c", "1"), stage.key()
    stage.send("record", there)
    stage.ledger.wait("ran", there)
    worker.tell(signal.SIGCONT)
    stage.open_gate(running)
    assert tracked.get(timeout=10) == running
    wait_until(lambda: not kept_as_started(server), "the end of what is kept")
    assert "is gone" not in other.said()
    assert (worker.stop(), other.stop()) == (0, 0)
