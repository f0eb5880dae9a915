"""Messages as mocks (API-108)."""

import json
from datetime import UTC, datetime

import pytest

from celery.contrib.testing.app import TestApp
from celery.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig


def test_a_message_of_protocol_2_has_the_id_in_its_headers():
    message = TaskMessage("t.add", id="1", args=(1, 2), kwargs={"z": 3}, callbacks=[4], shadow="sum", retries=5)
    assert message.headers == {"id": "1", "task": "t.add", "shadow": "sum", "retries": 5}
    assert message.payload == ((1, 2), {"z": 3}, {"callbacks": [4], "errbacks": None, "chain": None})
    assert json.loads(message.body) == [[1, 2], {"z": 3}, {"callbacks": [4], "errbacks": None, "chain": None}]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")


def test_a_message_of_protocol_1_has_everything_in_its_body():
    message = TaskMessage1("t.add", id="1", args=(1, 2), callbacks=[4], retries=5)
    expected = {
        "task": "t.add", "id": "1", "args": (1, 2), "kwargs": {}, "callbacks": [4], "errbacks": None, "retries": 5,
    }  # fmt: skip
    assert message.headers == {}
    assert message.payload == expected
    assert json.loads(message.body) == {**expected, "args": [1, 2]}


def test_messages_without_an_id_get_one_each():
    assert TaskMessage("t").headers["id"] != TaskMessage("t").headers["id"]


def test_a_signature_becomes_the_message_of_its_call():
    with TestApp() as app:
        options = {"task_id": "1", "countdown": 60, "expires": 120, "link": app.signature("t.log")}
        sig = app.signature("t.add", (1, 2), {"z": 3}, **options)
        before = datetime.now(UTC)
        message = task_message_from_sig(app, sig)
        assert message.headers["id"] == message.headers["task_id"] == "1"
        assert message.headers["task"] == "t.add"
        assert message.headers["reply_to"] == app.thread_oid
        assert 59 < (datetime.fromisoformat(message.headers["eta"]) - before).total_seconds() < 70
        assert 119 < (datetime.fromisoformat(message.headers["expires"]) - before).total_seconds() < 130
        args, kwargs, embed = message.payload
        assert (tuple(args), kwargs) == ((1, 2), {"z": 3})
        assert [callback["task"] for callback in embed["callbacks"]] == ["t.log"]
        assert embed["errbacks"] is embed["chain"] is None
        assert sig.options["countdown"] == 60


def test_a_context_mock_gives_itself_and_lets_errors_through():
    mock = ContextMock()
    with mock as given:
        given.method(1)
    mock.method.assert_called_once_with(1)
    with pytest.raises(ZeroDivisionError), mock:
        raise ZeroDivisionError
