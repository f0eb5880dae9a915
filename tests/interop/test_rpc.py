"""Results that travel as messages (`rpc://`, wire.md 4.7): each Celery answers the clients of the other."""

import pytest
from fleet import Fleet

OTHER = {"ours": "theirs", "theirs": "ours"}
pytestmark = pytest.mark.needs("rabbitmq")


@pytest.fixture(scope="module")
def fleet(rabbitmq_url, tmp_path_factory, celery57):
    """A worker and a client of each side."""
    fleet = Fleet(rabbitmq_url, "rpc://", tmp_path_factory.mktemp("fleet"), celery57)
    try:
        workers = {side: fleet.worker(side) for side in OTHER}
        fleet.clients = {side: fleet.client(side) for side in OTHER}
        for side, worker in workers.items():
            fleet.wait_ready(worker, side)
        yield fleet
    finally:
        fleet.close()


@pytest.mark.parametrize("sender", OTHER)
def test_results_failures_and_retries_are_answered(fleet, sender):
    do, runner = fleet.clients[sender].do, OTHER[sender]
    assert do(f"[value(r) for r in [send(add, n, n, side={runner!r}) for n in range(9)]]") == [*range(0, 18, 2)]
    assert do(f"failure(send(fail, 'why', side={runner!r}))") == ["Trouble", ["why", "7"], True, "FAILURE"]
    assert do(f"call(retry_twice, 'rpc-{sender}', side={runner!r})") == 2
    assert do(f"call(echo, *rich(), side={runner!r}) == [rich(), {{}}]")


@pytest.mark.parametrize("sender", OTHER)
def test_states_on_the_way_are_told(fleet, sender):
    key = f"rpc-{sender}-{fleet.name}"
    told = fleet.clients[sender].do(f"states_told(send(progress, {key!r}, side={OTHER[sender]!r}), {key!r})")
    assert told == ["PROGRESS", "SUCCESS"]


def test_workflows_of_theirs_are_answered_by_our_worker(fleet):
    do = fleet.clients["theirs"].do
    queue = f".set(queue='{fleet.name}-ours')"
    assert do(f"value(celery.chain(add.s(1, 1){queue}, add.s(2){queue}, add.s(3){queue})())") == 7
    assert do(f"value(celery.group([add.s(n, n){queue} for n in range(5)])())") == [0, 2, 4, 6, 8]
