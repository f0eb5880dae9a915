"""Signals: connecting, sending, forgetting (SIG-001 to SIG-003), and the list of those that exist."""

import gc
import logging

import pytest

from celery import signals
from celery.local import PromiseProxy
from celery.utils.dispatch import Signal


@pytest.fixture
def signal():
    return Signal(name="ping", providing_args={"what"})


def echo(sender=None, **kwargs):
    return kwargs["what"]


def test_a_receiver_gets_signal_sender_and_arguments(signal):
    seen = []

    @signal.connect
    def receiver(**kwargs):
        seen.append(kwargs)
        return "done"

    assert signal.send("me", what=1) == [(receiver, "done")]
    assert seen == [{"signal": signal, "sender": "me", "what": 1}]


def test_a_receiver_without_keywords_is_refused(signal):
    with pytest.raises(ValueError, match="keyword"):
        signal.connect(lambda sender: None)


def test_the_same_connection_is_kept_once(signal):
    signal.connect(echo)
    signal.connect(echo)
    assert len(signal.send("x", what=1)) == 1
    signal.connect(echo, dispatch_uid="u")
    signal.connect(lambda **_: None, dispatch_uid="u", weak=False)
    assert len(signal.send("x", what=1)) == 2


def test_a_receiver_hears_only_the_sender_it_asked_for(signal):
    class Sender:
        pass

    one, other = Sender(), Sender()
    signal.connect(echo, sender=one)
    assert signal.send(one, what=1) == [(echo, 1)]
    assert signal.send(other, what=1) == []
    assert signal.has_listeners(one)
    assert not signal.has_listeners(other)


def test_names_as_senders_compare_by_value(signal):
    signal.connect(sender="proj.add")(echo)
    assert signal.send(str(b"proj.add", "ascii"), what=2) == [(echo, 2)]


def test_disconnecting_says_whether_there_was_a_connection(signal):
    signal.connect(echo, sender="a")
    assert not signal.disconnect(echo)
    assert signal.disconnect(echo, sender="a")
    assert not signal.receivers
    signal.connect(echo, dispatch_uid="u")
    assert signal.disconnect(dispatch_uid="u")


def test_a_receiver_nobody_else_holds_is_forgotten(signal):
    class Listener:
        def hear(self, **kwargs):
            return "heard"

    listener = Listener()
    signal.connect(listener.hear)
    assert [response for _, response in signal.send(None)] == ["heard"]
    del listener
    gc.collect()
    assert signal.send(None) == []
    assert signal.receivers == []


def test_a_strong_connection_keeps_its_receiver(signal):
    signal.connect(lambda **_: "here", weak=False)
    gc.collect()
    assert [response for _, response in signal.send(None)] == ["here"]


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_a_failing_receiver_is_logged_and_the_others_are_called(signal, caplog, send):
    @signal.connect
    def fails(**kwargs):
        raise LookupError("boom")

    signal.connect(echo)
    with caplog.at_level(logging.ERROR):
        (_, error), (_, answer) = getattr(signal, send)("x", what=5)
    assert isinstance(error, LookupError)
    assert answer == 5
    assert "boom" in caplog.text
    assert "ping" in caplog.text


def test_a_receiver_with_retry_is_called_until_it_succeeds(signal):
    attempts = []

    @signal.connect(retry=True)
    def flaky(**kwargs):
        attempts.append(kwargs)
        if len(attempts) < 2:
            raise OSError("not yet")
        return "at last"

    assert [response for _, response in signal.send("x")] == ["at last"]
    assert len(attempts) == 2
    assert signal.disconnect(flaky)


def test_a_task_not_made_yet_becomes_the_sender_when_it_is_made(signal):
    task = object()
    promise = PromiseProxy(lambda: task)
    signal.connect(echo, sender=promise)
    assert not promise.__evaluated__()
    assert not signal.receivers
    promise.__evaluate__()
    assert signal.send(task, what=3) == [(echo, 3)]
    assert signal.send(object(), what=3) == []


def test_sending_without_receivers_is_nothing(signal):
    assert signal.send("x", what=1) == []
    assert not signal.receivers
    assert not signal.has_listeners()


def test_every_signal_knows_its_name():
    for name in signals.__all__:
        assert getattr(signals, name).name == name
    assert signals.before_task_publish.providing_args >= {"body", "headers", "properties"}
