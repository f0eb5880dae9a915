"""``call``, ``result``, ``purge``: messages and results from the command line (CLI-093..095)."""

import json

import pytest

from celery.utils.uniqueid import uuid


def waiting(app, queue="celery"):
    return app.publisher.run(lambda sender: sender.length(queue))


def test_call_sends_a_task_by_name_and_prints_its_id(invoke, app):
    ended = invoke("call", "proj.add", "-a", "[1, 2]", "-k", '{"z": 3}')
    assert ended.exit_code == 0, ended.output
    assert len(ended.output.strip()) == 36
    assert waiting(app) == 1


def test_call_sends_where_it_is_told(invoke, app):
    assert invoke("call", "proj.add", "--queue", "slow", "--expires", "60").exit_code == 0
    assert (waiting(app, "slow"), waiting(app)) == (1, 0)


@pytest.mark.parametrize(
    "argv", [("-a", "[1"), ("-k", "[]"), ("--eta", "tomorrow"), ("--countdown", "x"), ("--expires", "never")]
)
def test_call_refuses_values_that_make_no_sense(invoke, app, argv):
    ended = invoke("call", "proj.add", *argv)
    assert ended.exit_code == 2
    assert "Invalid value for" in ended.output
    assert waiting(app) == 0


def test_call_says_when_there_is_no_broker(invoke, app):
    app.conf.update(broker_url="redis://127.0.0.1:1/0", task_publish_retry=False, broker_connection_timeout=1)
    ended = invoke("call", "proj.add")
    assert ended.exit_code == 69
    assert "Could not connect to the message broker." in ended.output


def test_result_prints_what_a_task_returned(invoke, app):
    task_id = uuid()
    app.backend.store_result(task_id, {"sum": 3}, "SUCCESS")
    ended = invoke("result", task_id)
    assert (ended.exit_code, ended.output) == (0, "{'sum': 3}\n")
    assert invoke("result", task_id, "--task", "proj.add").output == "{'sum': 3}\n"


@pytest.mark.parametrize("options", [(), ("--traceback",)])
def test_result_says_when_there_is_no_store(invoke, app, options):
    app.conf.update(
        result_backend="redis://:secret@127.0.0.1:1/0",
        result_backend_transport_options={"retry_policy": {"max_retries": 0}},
    )
    ended = invoke("result", uuid(), *options)
    assert ended.exit_code == 69
    assert "Could not connect to the result backend." in ended.output
    assert "secret" not in ended.output


def test_result_raises_what_the_task_raised(invoke, app):
    task_id = uuid()
    app.backend.store_result(task_id, LookupError("no such row"), "FAILURE", traceback="the traceback")
    ended = invoke("result", task_id)
    assert ended.exit_code == 1
    assert isinstance(ended.exception, LookupError)
    assert invoke("result", task_id, "--traceback").output == "the traceback\n"


def test_the_traceback_of_an_unknown_task_is_an_empty_line(invoke):
    assert invoke("result", uuid(), "--traceback").output == "\n"


def test_purge_asks_first_and_names_the_queues(invoke, app):
    app.send_task("proj.add", (1, 2))
    ended = invoke("purge", input="n\n")
    assert ended.exit_code == 1
    assert "of the queue celery" in ended.output
    assert waiting(app) == 1


def test_purge_erases_what_waits_in_the_known_queues(invoke, app):
    for _ in range(3):
        app.send_task("proj.add", (1, 2))
    assert invoke("purge", input="y\n").output.endswith("Purged 3 messages from 1 known task queue.\n")
    assert invoke("purge", "-f").output == "No messages purged from 1 queue.\n"


def test_purge_erases_only_the_queues_it_is_told(invoke, app):
    for queue in ("a", "b", "c"):
        app.send_task("proj.add", (1, 2), queue=queue)
    assert invoke("purge", "-f", "-Q", "a,b", "-X", "b").output == "Purged 1 message from 1 known task queue.\n"
    assert [waiting(app, queue) for queue in ("a", "b", "c")] == [0, 1, 1]
    assert "No queue is left" in invoke("purge", "-f", "-Q", "b", "-X", "b").output


def test_report_hides_credentials(invoke, app):
    app.conf.broker_read_url = "redis://user:secret@host/0"
    ended = invoke("report")
    assert ended.exit_code == 0
    assert "software -> celery:5.7.0" in ended.output
    assert "secret" not in ended.output


def test_settings_lists_those_without_effect(invoke, app):
    app.conf.update(arangodb_backend_settings={"host": "h"}, task_default_queue="high")
    ended = invoke("settings")
    assert ended.output == "arangodb_backend_settings\n"


def test_settings_prints_a_reference_of_all(invoke):
    text = invoke("settings", "--reference").output
    assert "task_default_queue: string, 'celery'\n    " in text
    assert len([line for line in text.splitlines() if line and not line.startswith(" ")]) > 200


def test_json_is_what_call_takes_and_result_gives_back(invoke, app):
    values = [1, "zwei", None, {"drei": [3.5]}]
    task_id = invoke("call", "proj.add", "-a", json.dumps(values)).output.strip()
    app.backend.store_result(task_id, values, "SUCCESS")
    assert invoke("result", task_id).output == f"{values}\n"
