"""``celery list bindings`` (CLI-096)."""

from click.testing import CliRunner

from celery import Celery
from celery.bin.celery import celery


def test_bindings_are_listed_in_columns(invoke):
    assert invoke("list", "bindings").output == (
        "Queue                        Exchange                     Routing Key\n"
        "----------------             ----------------             ----------------\n"
        "celery                       celery                       celery\n"
    )


def test_the_queues_are_declared_first(invoke, app):
    app.conf.task_queues = {"slow": {"exchange": "work", "exchange_type": "topic", "routing_key": "slow.#"}}
    assert "slow                         work                         slow.#\n" in invoke("list", "bindings").output


def test_on_rabbitmq_it_says_whom_to_ask(rabbitmq_url, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    with Celery("proj", set_as_current=False, broker=rabbitmq_url) as app:
        ended = CliRunner().invoke(celery, ["list", "bindings"], obj=app)
    assert ended.exit_code == 2
    assert "Your transport cannot list bindings." in ended.output
    assert "rabbitmqctl list_bindings" in ended.output
