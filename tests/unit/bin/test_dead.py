"""``celery dead`` on each broker."""

import asyncio

import pytest
from click.testing import CliRunner

from celery import Celery
from celery.app.brokers import open_receiver
from celery.bin.celery import celery
from celery.brokers.base import Settlement, Verdict
from celery.brokers.topology import Queue


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
    ]
)
def app(request):
    if request.param == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with Celery("proj", set_as_current=False, broker=url) as app:
        yield app
        for queue in ("celery", "celery.dead", "slow", "slow.dead", "other"):
            app.publisher.run(lambda sender, queue=queue: sender.purge(queue))


@pytest.fixture
def invoke(app, monkeypatch):
    for name in ("APP", "CELERY_APP", "NO_COLOR", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "")
    return lambda *argv, **options: CliRunner().invoke(celery, argv, obj=app, **options)


def refuse(app, *numbers, queue="celery"):
    """Let a worker refuse tasks with these ids, one after the other."""
    for number in numbers:
        app.send_task("proj.gone", task_id=number, queue=queue)

    async def work():
        receiver = open_receiver(app, app.conf.broker_url, "w@h")
        await receiver.open()
        await receiver.consume(Queue(queue))
        got = []
        while len(got) < len(numbers):
            got += await receiver.receive(10)
        await receiver.settle([Settlement(one, Verdict.DEAD, reason="unknown task") for one in got])
        await receiver.close()

    asyncio.run(asyncio.wait_for(work(), 20))


def waiting(app, queue="celery"):
    return app.publisher.run(lambda sender: sender.length(queue))


def test_dead_letters_are_listed_the_latest_first_with_their_reason(invoke, app):
    refuse(app, "a", "b")
    head, first, second = invoke("dead").output.splitlines()
    assert head == "celery: 2 dead letters"
    assert "proj.gone[b]  unknown task" in first
    assert "proj.gone[a]  unknown task" in second
    assert invoke("dead", "list", "-n", "1").output.startswith("celery: 2 dead letters, the latest 1\n")


def test_dead_letters_are_sent_again_to_their_queue(invoke, app):
    refuse(app, "a", "b", "c")
    assert invoke("dead", "replay", "-n", "2").output == "celery: sent 2 messages again, 1 left\n"
    assert waiting(app) == 2
    assert "[c]" in invoke("dead").output
    assert invoke("dead", "replay").output == "celery: sent 1 message again, 0 left\n"
    assert (waiting(app), invoke("dead").output) == (3, "celery: 0 dead letters\n")


def test_only_the_queues_named_are_looked_at(invoke, app):
    refuse(app, "a")
    refuse(app, "s", queue="slow")
    assert invoke("dead", "replay", "-Q", "slow,other").output.splitlines() == [
        "other: sent 0 messages again, 0 left",
        "slow: sent 1 message again, 0 left",
    ]
    assert (waiting(app), waiting(app, "slow")) == (0, 1)


def test_purge_asks_and_erases_dead_letters_alone(invoke, app):
    refuse(app, "a")
    app.send_task("proj.gone")
    assert invoke("dead", "purge", input="n\n").exit_code == 1
    assert "1 dead letter\n" in invoke("dead").output
    assert invoke("dead", "purge", "-f").output == "celery: erased 1 dead letter\n"
    assert (waiting(app), invoke("dead").output) == (1, "celery: 0 dead letters\n")


def test_purge_takes_no_limit(invoke):
    ended = invoke("dead", "purge", "-n", "3")
    assert ended.exit_code == 2
    assert "it takes no -n" in ended.output


@pytest.mark.needs("rabbitmq")
def test_on_rabbitmq_it_says_which_queue_has_a_place_of_its_own_for_them(rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    with Celery("proj", set_as_current=False, broker=rabbitmq_url) as app:
        arguments = {"x-dead-letter-exchange": "graveyard"}
        app.conf.task_queues = [Queue("own", queue_arguments=arguments), Queue("plain")]
        ended = CliRunner().invoke(celery, ["dead"], obj=app)
    assert ended.output.splitlines() == [
        "own: what it refuses goes to its own x-dead-letter-exchange 'graveyard', not here",
        "plain: 0 dead letters",
    ]
