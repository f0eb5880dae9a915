"""What `celery.backends.chords` promises of counting, asked of every backend that counts (CANVAS-051, CANVAS-052)."""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from stores import COUNTS, EARLY_PARTS, PROCESSES, SOON

from celery import states
from celery.backends.chords import Member
from celery.brokers.base import ChordClaim, ChordPart, ChordStart

pytestmark = pytest.mark.only_with(COUNTS)


@pytest.fixture
def group_id():
    return str(uuid.uuid4())


@pytest.fixture
def book(bench):
    return bench.worker.chords


def part(group_id, index, value=None, state=states.SUCCESS, task_id=None):
    task_id = task_id or f"task-{index}"
    payload = json.dumps([1, task_id, state, index if value is None else value]).encode()
    return ChordPart(group_id, task_id, index, state, payload)


def begin(book, group_id, size):
    book.begin([ChordStart(group_id, size)])


def complete(book, group_id, size=2):
    """Begin a chord and count all of its members; the claim that comes of it."""
    begin(book, group_id, size)
    [claim] = book.add([part(group_id, index) for index in range(size)])
    return claim


def until(question):
    """Ask until the answer is true, for some seconds."""
    deadline = time.monotonic() + SOON
    while not (answer := question()):
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.05)
    return answer


# -- Counting ----------------------------------------------------------------------------------------------------------


def test_the_last_of_the_members_gives_the_claim(book, group_id):
    begin(book, group_id, 3)
    assert book.add([part(group_id, 1)]) == []
    assert book.add([part(group_id, 0)]) == []
    [claim] = book.add([part(group_id, 2)])
    assert claim.token
    assert claim.part == part(group_id, 2)


@pytest.mark.only_with(EARLY_PARTS)
def test_members_may_finish_before_their_chord_begins(book, group_id):
    assert book.add([part(group_id, 0), part(group_id, 1)]) == []
    begin(book, group_id, 3)
    [claim] = book.add([part(group_id, 2)])
    assert claim.token
    assert len(book.members(group_id)) == 3


def test_a_member_counts_once_however_often_it_ran(book, group_id):
    begin(book, group_id, 2)
    for value in range(5):
        assert book.add([part(group_id, 0, value)]) == []
    [claim] = book.add([part(group_id, 1)])
    assert claim.token
    assert [member.value for member in book.members(group_id)] == [0, 1], "the first of its values"


def test_a_task_counts_at_each_of_its_positions(book, group_id):
    begin(book, group_id, 2)
    assert book.add([part(group_id, 0, task_id="one")]) == []
    [claim] = book.add([part(group_id, 1, task_id="one")])
    assert claim.token


def test_one_call_counts_for_many_chords(book):
    groups = [str(uuid.uuid4()) for _ in range(20)]
    book.begin([ChordStart(group_id, 2) for group_id in groups])
    claims = book.add([part(group_id, index) for index in (0, 1) for group_id in groups[:15]])
    assert sorted(claim.part.group_id for claim in claims) == sorted(groups[:15])
    assert len({claim.token for claim in claims} - {""}) == 15


def test_beginning_again_forgets_nobody(book, group_id):
    begin(book, group_id, 2)
    book.add([part(group_id, 0)])
    begin(book, group_id, 2)
    [claim] = book.add([part(group_id, 1)])
    assert claim.token


def test_a_member_that_joins_is_waited_for(book, group_id):
    begin(book, group_id, 2)
    book.add([part(group_id, 0)])
    book.extend(group_id)
    assert book.add([part(group_id, 1)]) == []
    [claim] = book.add([part(group_id, 1, task_id="joined")])
    assert claim.token
    assert len(book.members(group_id)) == 3


# -- What is counted ---------------------------------------------------------------------------------------------------


def test_members_come_in_the_order_of_their_positions(book, group_id):
    begin(book, group_id, 12)
    book.add([part(group_id, None, 99, task_id="wherever")])
    for index in (10, 2, 9, 0, 1, 3, 8, 4, 7, 5, 6):
        book.add([part(group_id, index)])
    members = book.members(group_id)
    assert members[0] == Member("task-0", states.SUCCESS, 0)
    assert [member.value for member in members] == [*range(11), 99]


def test_a_member_that_failed_comes_with_its_exception(bench, book, group_id):
    backend = bench.worker
    error = backend.encode_result(ValueError("hdr"), states.FAILURE)
    begin(book, group_id, 2)
    payload = json.dumps([1, "bad", states.FAILURE, error]).encode()
    book.add([part(group_id, 0), ChordPart(group_id, "bad", 1, states.FAILURE, payload)])
    _, failed = bench.make().chords.members(group_id)
    assert (failed.task_id, failed.state) == ("bad", states.FAILURE)
    assert repr(bench.worker.exception_to_python(failed.value)) == "ValueError('hdr')"


def test_a_chord_that_nobody_knows_has_no_members(book, group_id):
    assert book.members(group_id) == []


# -- Claims ------------------------------------------------------------------------------------------------------------


def test_only_one_has_the_claim_while_it_lasts(bench, book, group_id):
    complete(book, group_id)
    for other in (book, bench.make().chords):
        [held] = other.add([part(group_id, 0)])
        assert held == ChordClaim(part(group_id, 0), ""), "another one has it"


def test_the_claim_of_a_dead_holder_goes_to_who_asks_after_its_end(bench, book, group_id):
    first = complete(book, group_id)
    peer = bench.make().chords
    [second] = until(lambda: [claim for claim in peer.add([part(group_id, 1)]) if claim.token])
    assert second.token != first.token
    assert not book.hold(first), "the first holder was only slow: its claim is void"
    book.close(first)
    assert peer.hold(second)
    assert len(peer.members(group_id)) == 2
    peer.close(second)
    assert peer.add([part(group_id, 1)]) == []


def test_a_claim_that_ended_is_held_again_while_nobody_else_took_it(book, group_id):
    claim = complete(book, group_id)
    begin(book, group_id, 2)  # which ends claims
    assert book.hold(claim)
    assert book.add([part(group_id, 0)]) == [ChordClaim(part(group_id, 0), "")]


def test_of_many_who_count_at_once_one_has_the_claim(bench, group_id):
    size, threads = 60, 6
    begin(bench.worker.chords, group_id, size)
    ready = threading.Barrier(threads)

    def count(number):
        book = bench.make().chords
        ready.wait(SOON)
        # Every part comes from two of them.
        mine = [index for index in range(size) if (index - number) % threads in (0, 1)]
        return [claim for index in mine for claim in book.add([part(group_id, index)])]

    with ThreadPoolExecutor(threads) as pool:
        claims = [claim for found in pool.map(count, range(threads)) for claim in found]
    assert len([claim for claim in claims if claim.token]) == 1
    assert [member.value for member in bench.worker.chords.members(group_id)] == list(range(size))


# -- The end -----------------------------------------------------------------------------------------------------------


def test_a_closed_chord_leaves_only_a_mark_behind(bench, book, group_id):
    book.extend(group_id)
    book.add([part(group_id, 0, task_id="joined")])
    claim = complete(book, group_id)
    book.close(claim)
    assert leftovers(bench, group_id) == ["mark"]
    book.close(claim)
    assert book.add([part(group_id, 0), part(group_id, 1)]) == []
    assert not book.hold(claim)
    assert book.members(group_id) == []
    assert leftovers(bench, group_id) == ["mark"]


def test_a_void_claim_closes_nothing(book, group_id):
    claim = complete(book, group_id)
    book.close(ChordClaim(claim.part, "another"))
    assert len(book.members(group_id)) == 2
    assert book.hold(claim)


def test_a_chord_whose_members_never_come_vanishes(bench, group_id):
    backend = bench.make(result_chord_expires=1)
    book = backend.chords
    begin(book, group_id, 3)
    book.add([part(group_id, 0), part(group_id, 1)])

    def gone():
        backend.cleanup()
        return not leftovers(bench, group_id)

    until(gone)
    assert book.add([part(group_id, 2)]) == []


def leftovers(bench, group_id):
    """What of a chord is in the store: marks by that word, other things by their names."""
    return LEFTOVERS[bench.name](bench.worker, group_id)


def _in_redis(backend, group_id):
    names = [
        key.decode() for pattern in (f"*{group_id}*", "celeriac.chords*") for key in backend._call("KEYS", pattern)
    ]
    closed = [name for name in names if name.endswith(".c") and backend.get(name) == b"done"]
    assert all(0 < int(backend._call("TTL", name)) <= 300 for name in closed)
    return ["mark" for _ in closed] + [name for name in names if name not in closed]


def _in_sqlite(backend, group_id):
    with backend.store.reading() as db:
        rows = db.execute("SELECT closed, expires_at FROM chord WHERE group_id = ?", (group_id,)).fetchall()
        parts = db.execute("SELECT 'part' FROM chord_part UNION ALL SELECT 'sender' FROM chord_sender").fetchall()
    assert all(time.time() < end <= time.time() + 300 for closed, end in rows if closed)
    return ["mark" if closed else "chord" for closed, _ in rows] + [name for (name,) in parts]


def _in_memory(backend, group_id):
    chord = backend.store.chords.get(group_id)
    return [] if chord is None else ["chord" if chord.parts or not chord.closed else "mark"]


def _in_database(backend, group_id):
    def rows(table, *columns):
        found = sa.select(*map(sa.column, columns)).select_from(sa.table(f"celeriac_{table}"))
        return backend._run(lambda connection: connection.execute(found.where(sa.column("group_id") == group_id)).all())

    chords = rows("chord", "closed", "expires", "body", "members")
    assert all(
        time.time() < end <= time.time() + 300 and not body and not members
        for closed, end, body, members in chords
        if closed
    )
    return ["mark" if closed else "chord" for closed, *_ in chords] + ["part" for _ in rows("chord_part", "position")]


LEFTOVERS = {"redis": _in_redis, "sqlite": _in_sqlite, "memory": _in_memory}
LEFTOVERS |= {f"database-{kind}": _in_database for kind in ("sqlite", "postgres", "mariadb")}


# -- Producers that die ------------------------------------------------------------------------------------------------

keeps_producers = pytest.mark.only_with(PROCESSES)
BODY = b'{"task": "w.xsum", "options": {"task_id": "body"}}'


def silent(book, group_id):
    """The claim of a chord whose producer says no more."""
    return until(lambda: [claim for claim in book.abandoned() if claim.part.group_id == group_id])[0]


@keeps_producers
def test_a_chord_whose_producer_fell_silent_is_claimed_once(bench, book, group_id):
    assert book.open(group_id, BODY, 1.5)
    book.add([part(group_id, 0)])
    assert book.abandoned() == []
    claim = silent(book, group_id)
    assert claim.part == ChordPart(group_id, "", None, states.FAILURE, b"", BODY)
    assert claim.token
    assert bench.make().chords.abandoned() == [], "it is taken"
    assert book.hold(claim)
    book.close(claim)
    assert not book.open(group_id, BODY, 0.3), "a producer that was only slow is told"
    assert book.add([part(group_id, 1)]) == []
    begin(bench.make().chords, str(uuid.uuid4()), 1)
    assert book.members(group_id) == []


@keeps_producers
def test_the_claim_of_such_a_chord_is_given_again_when_its_holder_died(bench, book, group_id):
    book.open(group_id, BODY, 0.1)
    begin(book, group_id, 2)
    first = silent(book, group_id)
    second = silent(bench.make().chords, group_id)
    assert second.token != first.token
    assert not book.hold(first)
    book.close(second)
    until(lambda: book.abandoned() == [] and leftovers(bench, group_id) == ["mark"])


@keeps_producers
def test_a_producer_that_goes_on_keeps_its_chord(book, group_id):
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert book.open(group_id, BODY, 0.5)
        assert book.abandoned() == []
        time.sleep(0.05)
    begin(book, group_id, 1)
    book.sent(group_id)
    time.sleep(0.6)
    assert book.abandoned() == [], "all has been sent: it may take as long as it takes"
    [claim] = book.add([part(group_id, 0)])
    assert claim.token


@keeps_producers
def test_a_chord_whose_members_have_all_finished_was_sent(book, group_id):
    """Its producer died just before it could say so."""
    book.open(group_id, BODY, 0.1)
    claim = complete(book, group_id)
    time.sleep(0.2)
    assert book.abandoned() == []
    assert book.hold(claim)
    book.close(claim)
    assert book.abandoned() == []


# -- Cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_part_costs_the_same_however_many_there_are(book, group_id):
    batches, batch = 100, 100
    beginning = str(uuid.uuid4())

    def add(group, number):
        """Seconds that a batch takes, and what claims come of it."""
        parts = [part(group, index) for index in range(number * batch, (number + 1) * batch)]
        started = time.perf_counter()
        claims = book.add(parts)
        return time.perf_counter() - started, claims

    for group in group_id, beginning:
        begin(book, group, batches * batch)
    early, late = [], []
    for number in range(batches):
        # Beside the last ones those of a chord that has just begun: what else the machine does, it does to both.
        if number >= batches - batches // 10:
            early.append(add(beginning, len(early))[0])
        took, claims = add(group_id, number)
        late.append(took)
    assert len(claims) == 1
    first, last = min(early), min(late[-len(early) :])
    assert last < 3 * first, f"{last * 1e6 / batch:.1f} us for each part at the end, {first * 1e6 / batch:.1f} at first"
    assert [member.value for member in book.members(group_id)] == list(range(batches * batch))
