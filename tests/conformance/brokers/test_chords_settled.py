"""Where broker and results are one store, chords are counted and finished while settling: all of it or nothing."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import uuid
from contextlib import asynccontextmanager

import pytest
from drivers import DRIVERS, SOON, TAKEOVER, message, start_process, take

from celery import Celery
from celery.brokers.base import ChordClaim, ChordPart, ChordStart, Publish, Settlement, Verdict
from celery.brokers.topology import Queue

#: A broker and a result store on one server; of Redis also in two databases.
PLACES = [
    pytest.param("sqlite"),
    pytest.param("redis", marks=pytest.mark.needs(*DRIVERS["redis"])),
    pytest.param("redis, two databases", marks=pytest.mark.needs(*DRIVERS["redis"])),
]

#: Takes a message, has its part counted, says what came of it, and waits to be killed.
HOLDER = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from test_chords_settled import Place, part
from drivers import take
from celery.brokers.base import Settlement, Verdict

async def main(broker, backend, queue, group_id):
    place = Place(broker, backend, queue)
    async with place.receiver() as receiver:
        held = await take(receiver, 1)
        settlement = Settlement(held[0], Verdict.ACK, parts=[part(group_id, 0)])
        await receiver.settle([settlement])
        print(len(settlement.claims), flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[2:]))
"""


class Place:
    """Where messages and results are."""

    def __init__(self, broker, backend, queue):
        self.urls = (broker, backend)
        self.queue = Queue(queue)
        self.driver = importlib.import_module(f"celery.brokers.{broker.partition(':')[0]}")
        self.app = Celery("chords", broker=broker, backend=backend, set_as_current=False)
        self.backend = self.app.backend

    @asynccontextmanager
    async def receiver(self):
        receiver = self.driver.Receiver(self.urls[0], {}, node="w1@host")
        assert receiver.share(self.backend)
        assert receiver.counts_chords
        await receiver.open()
        try:
            await receiver.consume(self.queue)
            yield receiver
        finally:
            await receiver.close()

    def send(self, count):
        batch = [Publish(message(), "", self.queue.name, self.queue) for _ in range(count)]
        self.app.publisher.publish(batch, confirm=True)

    def length(self, queue):
        return self.app.publisher.run(lambda sender: sender.length(queue))

    @property
    def book(self):
        return self.backend.chords

    def begin(self, size):
        group_id = str(uuid.uuid4())
        self.book.begin([ChordStart(group_id, size)])
        return group_id


@pytest.fixture
def place(request):
    queue = f"q-{uuid.uuid4()}"
    if request.param == "sqlite":
        file = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
        made = Place(file, file, queue)
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        made = Place(url, url, queue)
    else:
        server = request.getfixturevalue("private_redis")().url.rpartition("/")[0]
        made = Place(f"{server}/3", f"{server}/5", queue)
    yield made
    made.app.close()


pytestmark = pytest.mark.parametrize("place", PLACES, indirect=True)


def part(group_id, index):
    return ChordPart(
        group_id, f"t{index}", index, "SUCCESS", json.dumps([1, f"t{index}", "SUCCESS", index * 10]).encode()
    )


def body(place):
    """What follows a finished chord."""
    return Publish(message("body"), "", f"{place.queue.name}.bodies", Queue(f"{place.queue.name}.bodies"))


def bodies(place):
    return place.length(f"{place.queue.name}.bodies")


async def test_a_part_is_counted_with_the_verdict_and_the_last_one_keeps_its_message(place):
    place.send(3)
    group_id = place.begin(3)
    async with place.receiver() as receiver:
        held = await take(receiver, 3)
        batch = [
            Settlement(delivery, Verdict.ACK, parts=[part(group_id, index)]) for index, delivery in enumerate(held)
        ]
        assert await receiver.settle(batch[:1]) == []
        assert batch[0].claims == []
        assert await receiver.settle(batch[1:]) == []
        assert batch[1].claims == []
        [claim] = batch[2].claims
        assert claim.part == part(group_id, 2)
        assert claim.token
        assert [member.value for member in place.book.members(group_id)] == [0, 10, 20]
        assert await receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in held]) == held[:2]


def member(place, delivery, group_id, index, **options):
    """What a worker makes of a member that has succeeded: its result, and its part."""
    result = place.backend.prepare_write(f"t{index}", index * 10, "SUCCESS")
    return Settlement(delivery, Verdict.ACK, results=[result], parts=[part(group_id, index)], **options)


async def test_members_with_results_are_counted_together_in_the_order_of_their_positions(place):
    place.send(6)
    group_id, other = place.begin(4), place.begin(2)
    async with place.receiver() as receiver:
        held = await take(receiver, 6)
        batch = [member(place, held[position], group_id, 3 - position) for position in range(4)]
        batch[2:2] = [member(place, held[4], other, 8), member(place, held[5], other, 7)]
        assert await receiver.settle(batch) == []
        assert [len(settlement.claims) for settlement in batch] == [0, 0, 0, 1, 0, 1]
        claims = batch[3].claims + batch[5].claims
        assert [claim.part for claim in claims] == [part(other, 7), part(group_id, 0)]
        assert all(claim.token for claim in claims)
        assert [entry.value for entry in place.book.members(group_id)] == [0, 10, 20, 30]
        assert [entry.value for entry in place.book.members(other)] == [70, 80]
        assert [place.backend.get_result(f"t{index}") for index in (0, 3, 7, 8)] == [0, 30, 70, 80]
        ends = [Settlement(held[3], Verdict.ACK, follow=[body(place)], closes=claims[1])]
        ends.append(Settlement(held[5], Verdict.ACK, follow=[body(place)], closes=claims[0]))
        assert await receiver.settle(ends) == []
        assert bodies(place) == 2
        assert await receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in held]) == held


async def test_members_with_results_are_counted_together_where_their_order_does_not_matter(place):
    place.app.conf.result_backend_transport_options = {"result_chord_ordered": False}
    place.send(4)
    group_id = place.begin(4)
    async with place.receiver() as receiver:
        held = await take(receiver, 4)
        batch = [member(place, delivery, group_id, index) for index, delivery in enumerate(held[:3])]
        assert await receiver.settle(batch[:2]) == []
        again = member(place, held[3], group_id, 0)
        assert await receiver.settle([again, batch[2]]) == []
        assert not any(settlement.claims for settlement in [*batch, again])
        assert sorted(entry.value for entry in place.book.members(group_id)) == [0, 10, 20]
        [claim] = place.book.add([part(group_id, 3)])
        assert claim.token


async def test_the_last_member_that_is_ours_gets_the_claim_though_one_behind_it_is_not(place):
    place.send(3)
    group_id = place.begin(2)
    async with place.receiver() as receiver:
        held = await take(receiver, 3)
        assert await receiver.settle([Settlement(held[2], Verdict.ACK)]) == []
        batch = [member(place, delivery, group_id, index) for index, delivery in enumerate(held)]
        assert await receiver.settle(batch) == [held[2]]
        assert [len(settlement.claims) for settlement in batch] == [0, 1, 0]
        [claim] = batch[1].claims
        assert claim.token
        assert await receiver.settle([Settlement(held[1], Verdict.ACK, follow=[body(place)], closes=claim)]) == []
        assert bodies(place) == 1
        assert await receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in held]) == held


async def test_a_member_with_a_claim_comes_back_when_its_worker_is_closed(place):
    place.send(2)
    group_id = place.begin(2)
    async with place.receiver() as receiver:
        held = await take(receiver, 2)
        batch = [member(place, delivery, group_id, index) for index, delivery in enumerate(held)]
        assert await receiver.settle(batch) == []
        assert [len(settlement.claims) for settlement in batch] == [0, 1]
    async with place.receiver() as receiver:
        (again,) = await take(receiver, 1, within=TAKEOVER)
        counted = member(place, again, group_id, 1)
        assert await receiver.settle([counted]) == []
        assert [claim.part for claim in counted.claims] == [part(group_id, 1)]


async def test_a_member_that_comes_twice_counts_once_beside_others(place):
    place.send(5)
    group_id = place.begin(4)
    async with place.receiver() as receiver:
        held = await take(receiver, 5)
        assert await receiver.settle([member(place, held[0], group_id, 0)]) == []
        # The first one again, with another value; one that comes twice in a batch; and one that is not ours any more.
        again = member(place, held[1], group_id, 0)
        again.parts = [ChordPart(group_id, "t0", 0, "SUCCESS", json.dumps([1, "t0", "SUCCESS", 99]).encode())]
        late = member(place, held[0], group_id, 3)
        batch = [again, member(place, held[2], group_id, 1), member(place, held[3], group_id, 1), late]
        assert await receiver.settle(batch) == [held[0]]
        assert [settlement.claims for settlement in batch] == [[], [], [], []]
        assert [entry.value for entry in place.book.members(group_id)] == [0, 10]
        assert place.book.add([part(group_id, 2)]) == []
        last = member(place, held[4], group_id, 3)
        assert await receiver.settle([last]) == []
        assert [claim.part for claim in last.claims] == [part(group_id, 3)]


async def test_of_members_that_are_all_ours_those_count_that_were_not_counted_before(place):
    place.send(5)
    group_id = place.begin(4)
    async with place.receiver() as receiver:
        held = await take(receiver, 5)
        assert await receiver.settle([member(place, held[0], group_id, 0)]) == []
        # The first one again, with another value; one that comes twice; and another one at the position of the first.
        again, twin = member(place, held[1], group_id, 0), member(place, held[2], group_id, 0)
        again.parts = [ChordPart(group_id, "t0", 0, "SUCCESS", json.dumps([1, "t0", "SUCCESS", 99]).encode())]
        twin.parts = [ChordPart(group_id, "u0", 0, "SUCCESS", json.dumps([1, "u0", "SUCCESS", 5]).encode())]
        batch = [again, twin, member(place, held[3], group_id, 1), member(place, held[4], group_id, 1)]
        assert await receiver.settle(batch) == []
        assert [settlement.claims for settlement in batch] == [[], [], [], []]
        assert sorted(entry.value for entry in place.book.members(group_id)) == [0, 5, 10]


async def test_one_of_two_members_that_complete_a_chord_gets_the_claim_though_their_results_are_kept_unequally_long(
    place,
):
    place.send(2)
    group_id = place.begin(1)
    place.backend.failure_expires = 17
    async with place.receiver() as receiver:
        held = await take(receiver, 2)
        batch = [member(place, delivery, group_id, 0) for delivery in held]
        batch[1].results = [place.backend.prepare_write("t0", ValueError(), "FAILURE")]
        assert await receiver.settle(batch) == []
        claims = [claim for settlement in batch for claim in settlement.claims]
        assert len([claim for claim in claims if claim.token]) == 1


async def test_a_member_with_a_result_is_told_that_another_holds_the_claim(place):
    place.send(1)
    group_id = place.begin(1)
    [claim] = place.book.add([part(group_id, 0)])
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        counted = member(place, held, group_id, 0)
        assert await receiver.settle([counted]) == []
        assert counted.claims == [ChordClaim(part(group_id, 0), "")]
        place.book.close(claim)
        again = member(place, held, group_id, 0)
        assert await receiver.settle([again]) == []
        assert again.claims == []
        assert await receiver.settle([Settlement(held, Verdict.ACK)]) == [held]


async def test_members_that_were_acknowledged_early_are_counted_together(place):
    place.send(2)
    group_id = place.begin(2)
    async with place.receiver() as receiver:
        held = await take(receiver, 2)
        await receiver.settle([Settlement(delivery, Verdict.START) for delivery in held])
        batch = [member(place, delivery, group_id, index) for index, delivery in enumerate(held)]
        assert await receiver.settle(batch) == []
        assert [len(settlement.claims) for settlement in batch] == [0, 1]
        done = Settlement(held[1], Verdict.ACK, closes=batch[1].claims[0], follow=[body(place)])
        assert await receiver.settle([done]) == []
        assert bodies(place) == 1
        assert await receiver.settle([Settlement(delivery, Verdict.ACK) for delivery in held]) == held


async def test_sending_the_body_and_closing_the_chord_are_one_step(place):
    place.send(1)
    group_id = place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        await receiver.settle([counted])
        assert place.book.hold(counted.claims[0])
        assert (
            await receiver.settle([Settlement(held, Verdict.ACK, follow=[body(place)], closes=counted.claims[0])]) == []
        )
        assert bodies(place) == 1
        assert not place.book.hold(counted.claims[0])
        assert place.book.members(group_id) == []
        assert await receiver.settle([Settlement(held, Verdict.ACK)]) == [held], "it was acknowledged"


async def test_a_chord_that_follows_an_attempt_begins_in_the_same_step(place):
    place.send(2)
    group_id = str(uuid.uuid4())
    async with place.receiver() as receiver:
        first, second = await take(receiver, 2)
        start = ChordStart(group_id, 1)
        assert await receiver.settle([Settlement(first, Verdict.ACK, begins=[start], follow=[body(place)])]) == []
        last = Settlement(second, Verdict.ACK, parts=[part(group_id, 0)])
        await receiver.settle([last])
        assert len(last.claims) == 1


async def test_with_a_void_claim_only_the_verdict_is_applied(place):
    place.send(1)
    group_id, outer = place.begin(1), place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        await receiver.settle([counted])
        void = Settlement(
            held,
            Verdict.ACK,
            closes=ChordClaim(part(group_id, 0), "another's"),
            follow=[body(place)],
            begins=[ChordStart(str(uuid.uuid4()), 1)],
            results=[place.backend.prepare_write("id", 1, "SUCCESS")],
            parts=[part(outer, 0)],
        )
        assert await receiver.settle([void]) == []
        assert void.claims == []
        assert bodies(place) == 0
        assert place.backend.get_state("id") == "PENDING"
        assert place.book.members(outer) == []
        assert len(place.book.members(group_id)) == 1, "it is still the holder's"
        assert await receiver.settle([Settlement(held, Verdict.ACK)]) == [held]


async def test_what_another_worker_has_taken_over_does_not_count(place):
    place.send(1)
    group_id = place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        await receiver.settle([Settlement(held, Verdict.ACK)])
        late = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        assert await receiver.settle([late]) == [held]
        assert late.claims == []
        assert place.book.members(group_id) == []


async def test_a_claim_that_another_holds_is_told_without_a_token(place):
    place.send(1)
    group_id = place.begin(1)
    [claim] = place.book.add([part(group_id, 0)])
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        assert await receiver.settle([counted]) == []
        assert counted.claims == [ChordClaim(part(group_id, 0), "")]
        place.book.close(claim)
        again = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        assert await receiver.settle([again]) == []
        assert again.claims == []
        assert await receiver.settle([Settlement(held, Verdict.ACK)]) == [held]


async def test_the_end_of_an_inner_chord_may_complete_an_outer_one(place):
    place.send(1)
    inner, outer = place.begin(1), place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        first = Settlement(held, Verdict.ACK, parts=[part(inner, 0)])
        await receiver.settle([first])
        second = Settlement(held, Verdict.ACK, closes=first.claims[0], parts=[part(outer, 0)])
        await receiver.settle([second])
        [claim] = second.claims
        assert claim.part.group_id == outer
        assert place.book.members(inner) == []
        third = Settlement(held, Verdict.ACK, closes=claim, follow=[body(place)])
        assert await receiver.settle([third]) == []
        assert bodies(place) == 1


async def test_effects_without_a_message_finish_chords_too(place):
    """As a settlement in the name of a message that another settlement answers for."""
    place.send(1)
    group_id = place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
        await receiver.settle([counted])
        held_receipt, held.receipt = held.receipt, None
        beside = Settlement(held, Verdict.ACK, closes=counted.claims[0], follow=[body(place)])
        assert await receiver.settle([beside]) == []
        held.receipt = held_receipt
        assert bodies(place) == 1
        assert await receiver.settle([Settlement(held, Verdict.ACK)]) == []


async def test_a_task_that_was_acknowledged_early_finishes_its_chord(place):
    place.send(1)
    group_id = place.begin(1)
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1)
        await receiver.settle([Settlement(held, Verdict.START)])
        counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)], after_start=True)
        assert await receiver.settle([counted]) == []
        [claim] = counted.claims
        done = Settlement(held, Verdict.ACK, closes=claim, follow=[body(place)], after_start=True)
        assert await receiver.settle([done]) == []
        assert bodies(place) == 1
        assert await receiver.settle([Settlement(held, Verdict.ACK, after_start=True)]) == [held]


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_worker_killed_between_claim_and_close_leads_to_one_body(place):
    place.send(1)
    group_id = place.begin(1)
    here = __file__.rpartition("/")[0]
    holder = start_process(HOLDER, here, *place.urls, place.queue.name, group_id)
    try:
        assert await asyncio.to_thread(holder.stdout.readline) == b"1\n"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    async with place.receiver() as receiver:
        (held,) = await take(receiver, 1, within=TAKEOVER)
        async with asyncio.timeout(SOON):
            while True:
                counted = Settlement(held, Verdict.ACK, parts=[part(group_id, 0)])
                assert await receiver.settle([counted]) == []
                [claim] = counted.claims
                if claim.token:
                    break
                await asyncio.sleep(0.1)
        assert [member.value for member in place.book.members(group_id)] == [0]
        done = Settlement(held, Verdict.ACK, closes=claim, follow=[body(place)])
        assert await receiver.settle([done]) == []
        assert bodies(place) == 1
        assert place.book.add([part(group_id, 0)]) == []
