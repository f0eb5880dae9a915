"""Fleets of both Celerys (see `fleet`): one per broker for a module, and what starts others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import Fleet  # noqa: E402  found through the line above

BROKERS = [
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq", "redis")),
]


@pytest.fixture(scope="module", params=BROKERS)
def broker(request):
    """The URL of each broker in turn; results are in Redis."""
    return request.getfixturevalue("redis_database" if request.param == "redis" else "rabbitmq_url")


@pytest.fixture(scope="module")
def fleet(broker, redis_database, tmp_path_factory, celery57):
    """A worker and a client of each side, on one broker."""
    fleet = Fleet(broker, redis_database, tmp_path_factory.mktemp("fleet"), celery57)
    try:
        workers = {side: fleet.worker(side) for side in ("ours", "theirs")}
        fleet.clients = {side: fleet.client(side) for side in ("ours", "theirs")}
        for side, worker in workers.items():
            fleet.wait_ready(worker, side)
        yield fleet
    finally:
        fleet.close()
