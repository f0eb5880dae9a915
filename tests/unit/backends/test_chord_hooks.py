"""The documented chord hooks: what third parties override and call (API-064, CANVAS-051, 057, 058)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from celery import Celery, chord, group
from celery.app.context import Context
from celery.app.outcome import Outbox
from celery.backends.base import BaseBackend, DisabledBackend, KeyValueStoreBackend
from celery.exceptions import ChordError
from celery.signals import before_task_publish

VECTOR = Path(__file__).parents[2] / "data" / "wire_vectors" / "chord_unlock_redis.json"


class Shelf(KeyValueStoreBackend):
    """Keeps values in a mapping that all of its kind share."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept = self.app.kept

    def get(self, key):
        return self.kept.get(key)

    def set(self, key, value):
        self.kept[key] = value

    def delete(self, key):
        self.kept.pop(key, None)


class CountingShelf(Shelf):
    implements_incr = True

    def incr(self, key):
        self.kept[key] = int(self.kept.get(key, 0)) + 1
        return self.kept[key]

    def expire(self, key, value):
        pass


def application(backend, **settings):
    app = Celery("w", broker=f"memory://{uuid.uuid4().hex}", backend=backend, set_as_current=False)
    app.kept = {}
    app.conf.update(result_chord_join_timeout=0.2, **settings)

    @app.task(name="w.add")
    def add(x, y):
        return x + y

    @app.task(name="w.xsum")
    def xsum(numbers):
        return sum(numbers)

    return app


@pytest.fixture
def app():
    app = application(Shelf)
    yield app
    app.close()


@pytest.fixture
def counting():
    app = application(CountingShelf)
    yield app
    app.close()


@pytest.fixture
def sent():
    """Gives what has been sent since the last question: (name, headers, body) of each message."""
    messages = []

    def heard(sender, body, headers, routing_key, **_):
        messages.append((sender, {**headers, "queue": routing_key}, json.loads(json.dumps(body))))

    def asked():
        found, messages[:] = list(messages), []
        return found

    before_task_publish.connect(heard)
    yield asked
    before_task_publish.disconnect(heard)


def returned(app, message, value, state="SUCCESS"):
    """A member of a header has run: its result is stored, and its chord is told."""
    _, headers, (_, _, embed) = message
    request = Context(headers, chord=embed["chord"], called_directly=False)
    if state == "SUCCESS":
        app.backend.mark_as_done(request.id, value, request)
    else:
        app.backend.mark_as_failure(request.id, value, request=request)


# -- A task that looks -------------------------------------------------------------------------------------------------


def test_the_polling_task_is_sent_as_5_7_sends_it(app, sent):
    """wire.md 4.6."""
    unlock, *header = json.loads(VECTOR.read_text())["vectors"]
    (group_id, body), fields, _ = unlock["body"]
    members = [tuple(member[0]) for member in fields["result"]]
    signatures = [
        app.signature("w.add", args=vector["body"][0], task_id=task_id)
        for vector, (task_id, _) in zip(header, members, strict=True)
    ]
    options = {**body["options"]}
    del options["group_id"]
    chord(group(signatures, app=app, task_id=group_id), app.signature({**body, "options": options})).apply_async(
        task_id=options["task_id"]
    )
    messages = {headers["id"]: (name, headers, embed) for name, headers, embed in sent()}
    ours = [messages.pop(task_id) for task_id, _ in members]
    [(name, headers, ((ours_id, ours_body), ours_fields, embed))] = messages.values()
    assert name == "celery.chord_unlock"
    assert (ours_id, ours_fields) == (group_id, fields)
    assert _without_reply(ours_body) == _without_reply(body)
    assert embed == unlock["body"][2]
    theirs = json.loads(unlock["raw"])["headers"]
    own = {"id", "root_id", "eta", "origin", "argsrepr", "kwargsrepr"}
    assert {key: headers[key] for key in theirs if key not in own} == {
        key: theirs[key] for key in theirs if key not in own
    }
    assert headers["eta"] is not None
    for (_, _, ours_message), vector in zip(ours, header, strict=True):
        assert ours_message[:2] == vector["body"][:2]
        assert _without_reply(ours_message[2]["chord"]) == _without_reply(vector["body"][2]["chord"])


def _without_reply(signature):
    return {**signature, "options": {k: v for k, v in signature["options"].items() if k != "reply_to"}}


@pytest.mark.parametrize(
    ("settings", "options", "queue"),
    [
        ({}, {}, "celery"),
        ({}, {"queue": "bodies"}, "bodies"),
        ({"task_routes": {"w.xsum": {"queue": "routed"}}}, {}, "routed"),
        ({"task_routes": {"w.xsum": {"queue": "routed"}, "celery.chord_unlock": {"queue": "other"}}}, {}, "routed"),
    ],
)
def test_the_polling_task_goes_where_the_body_goes(settings, options, queue, sent):
    """CANVAS-051."""
    app = application(Shelf, task_default_queue="celery", **settings)
    chord([app.signature("w.add", (1, 1))], app.signature("w.xsum", **options)).apply_async()
    assert ("celery.chord_unlock", queue) in [(name, headers["queue"]) for name, headers, _ in sent()]
    app.close()


def test_what_follows_an_attempt_brings_the_polling_task_along(app):
    """It is sent with the header, when the attempt is settled; not before."""
    outbox = Outbox()
    chord([app.signature("w.add", (1, 1))], app.signature("w.xsum")).apply_async(producer=outbox)
    names = [message.envelope.headers["task"] for message in outbox.messages]
    assert sorted(names) == ["celery.chord_unlock", "w.add"]


def unlock(app, message, **options):
    """Run the polling task, as a worker would."""
    _, _, (args, kwargs, _) = message
    return app.tasks["celery.chord_unlock"].apply(args, kwargs, **options)


def test_the_polling_task_looks_again_until_all_are_there(app, sent):
    chord([app.signature("w.add", (n, n)) for n in (1, 2)], app.signature("w.xsum")).apply_async()
    messages = sent()
    [polling] = [message for message in messages if message[0] == "celery.chord_unlock"]
    first, second = (message for message in messages if message[0] == "w.add")
    returned(app, first, 2)
    header = app.GroupResult(polling[2][0][0], [app.AsyncResult(m[1]["id"]) for m in (first, second)])
    assert not app.backend.header_is_complete(header)
    returned(app, second, 4)
    assert app.backend.header_is_complete(header)
    assert unlock(app, polling).state == "SUCCESS"
    [(name, headers, (args, _, _))] = sent()
    assert (name, args) == ("w.xsum", [[2, 4]])
    assert headers["group"] == header.id


def test_a_chord_that_is_not_polled_any_longer_fails(app, sent):
    """CANVAS-057."""
    body = app.signature("w.xsum")
    result = chord([app.signature("w.add", (1, 1))], body).run(
        group([app.signature("w.add", (1, 1))], app=app), body, app=app, interval=0.01, max_retries=0
    )
    [polling] = [message for message in sent() if message[0] == "celery.chord_unlock"]
    assert polling[2][1]["max_retries"] == 0
    unlock(app, polling)
    error = result.get(timeout=5, propagate=False)
    assert isinstance(error, ChordError)
    assert str(error).startswith("chord_unlock could not be retried: MaxRetriesExceededError(")


# -- A counter ---------------------------------------------------------------------------------------------------------


def started(app, sent):
    """A chord of three members, one of them in a chain: its result and the messages of the header."""
    header = [app.signature("w.add", (1, 1)), app.signature("w.add", (2, 2)), app.signature("w.add", (3, 3))]
    return chord(header, app.signature("w.xsum")).apply_async(), sent()


def test_the_last_member_that_is_counted_sends_the_body(counting, sent):
    result, messages = started(counting, sent)
    assert [name for name, _, _ in messages] == ["w.add"] * 3, "nobody polls"
    for number, message in enumerate(messages):
        assert sent() == []
        returned(counting, message, number)
    [(name, headers, (args, _, _))] = sent()
    assert (name, headers["id"], args) == ("w.xsum", result.id, [[0, 1, 2]])
    assert headers["parent_id"] == messages[-1][1]["id"]
    kept = [key.decode() for key in counting.kept]
    assert all(key.startswith("celery-task-meta-") for key in kept), "no bookkeeping is left"


def test_a_failed_member_fails_the_chord_it_counts_for(counting, sent):
    result, messages = started(counting, sent)
    returned(counting, messages[0], 1)
    returned(counting, messages[1], ValueError("hdr"), "FAILURE")
    returned(counting, messages[2], 1)
    error = result.get(timeout=5, propagate=False)
    assert (type(error), str(error)) == (ChordError, f"Dependency {messages[1][1]['id']} raised ValueError('hdr')")
    assert sent() == []


def test_a_chord_whose_header_is_forgotten_fails(counting, sent):
    """CANVAS-057."""
    result, messages = started(counting, sent)
    counting.backend.delete_group(messages[0][1]["group"])
    returned(counting, messages[0], 1)
    error = result.get(timeout=5, propagate=False)
    assert str(error) == f"GroupResult {messages[0][1]['group']} no longer exists"


def test_a_chord_whose_header_cannot_be_read_fails(counting, sent):
    """CANVAS-057."""
    result, messages = started(counting, sent)
    counting.kept[counting.backend.get_key_for_group(messages[0][1]["group"])] = "{not json"
    returned(counting, messages[0], 1)
    assert str(result.get(timeout=5, propagate=False)).startswith("Cannot restore group: DecodeError(")


def test_a_member_that_ran_twice_makes_a_task_look_for_the_others(counting, sent):
    """Nobody is missed, and no chord is begun with values that are not there."""
    _, messages = started(counting, sent)
    for message in (messages[0], messages[1], messages[1]):
        returned(counting, message, 1)
    assert [name for name, _, _ in sent()] == ["celery.chord_unlock"]


def test_a_chord_whose_last_member_died_with_its_worker_is_finished_when_that_comes_again(counting, sent):
    """A task looks later whether the chord is over, as whoever counted the last one may just be finishing it."""
    _, messages = started(counting, sent)
    for message in messages[:2]:
        returned(counting, message, 1)
    backend, last = counting.backend, messages[2]
    backend.store_result(last[1]["id"], 1, "SUCCESS")
    backend.incr(backend.get_key_for_chord(last[1]["group"]))  # and here its worker was killed
    returned(counting, last, 1)
    [looking] = sent()
    assert looking[0] == "celery.chord_unlock"
    for times in (1, 2):
        assert unlock(counting, looking).state == "SUCCESS"
        assert [(name, args) for name, _, (args, _, _) in sent()] == [("w.xsum", [[1, 1, 1]])] * (times == 1)
    assert all(key.startswith(b"celery-task-meta-") for key in counting.kept), "no bookkeeping is left"


# -- What all have -----------------------------------------------------------------------------------------------------


def test_a_store_that_does_not_count_cannot_take_more_members(app):
    """CANVAS-073."""
    with pytest.raises(NotImplementedError, match="Shelf does not support add_to_chord"):
        app.backend.add_to_chord("group", None)


def test_a_store_that_counts_does_so_for_who_calls_its_hooks(sent):
    """Packages that run tasks by other means (celery-batches) report them with `mark_as_done`."""
    app = application(f"cache+memory://{uuid.uuid4().hex}")
    result, messages = started(app, sent)
    assert [name for name, _, _ in messages] == ["w.add"] * 3
    for number, message in enumerate(messages):
        returned(app, message, number)
    [(name, headers, (args, _, _))] = sent()
    assert (name, headers["id"], args) == ("w.xsum", result.id, [[0, 1, 2]])
    assert app.backend.chords.members(messages[0][1]["group"]) == []
    app.close()


def test_a_chord_may_be_failed_by_hand(app):
    @app.task(name="w.told")
    def told(request, exc, traceback):
        heard.append((request.id, exc))

    heard = []
    body = app.signature("w.xsum", task_id=str(uuid.uuid4()))
    body.link_error(app.signature("w.told"))
    app.backend.chord_error_from_stack(body, ChordError("as asked"))
    assert [(task_id, str(error)) for task_id, error in heard] == [(body.id, "as asked")]
    assert app.AsyncResult(body.id).state == "FAILURE"


def test_where_results_go_nowhere_no_chord_is_started(sent):
    """CANVAS-063, API-066."""
    for backend, words in (("disabled://", "requires a result backend"), ("rpc://", "does not support chords")):
        app = application(backend)
        with pytest.raises(NotImplementedError, match=words):
            chord([app.signature("w.add", (1, 1))], app.signature("w.xsum")).apply_async()
        assert sent() == []
        app.close()


def test_the_hooks_of_5_7_are_there_for_subclasses(app):
    """API-064."""
    assert BaseBackend(app).ensure_chords_allowed() is None
    assert BaseBackend(app).set_chord_size("group", 3) is None
    assert BaseBackend(app).on_chord_part_return(Context(id="one"), "SUCCESS", 1) is None
    assert DisabledBackend(app).chords is None
