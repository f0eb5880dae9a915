"""Commands as bytes."""

import pytest
from hiredis import pack_command

from celery.brokers.redis import resp
from celery.brokers.redis.routing import Posting
from celery.brokers.redis.sender import pushes


@pytest.mark.parametrize("count", [0, 1, 31, 32, 600])
def test_a_command_in_pieces_is_the_one_that_is_packed_whole(count):
    texts = [b"text %d \r\n" % number for number in range(count)]
    assert resp.pack(resp.pack_texts(("LPUSH", "a q\u00fceue"), texts)) == resp.pack(("LPUSH", "a q\u00fceue", *texts))


def test_pushes_keep_their_order_whatever_they_are_packed_by():
    runs = [("many", 40), ("one", 1), ("many", 2), ("full", 510), ("full", 1)]
    pushed = [
        (name, [b"%d of run %d" % (number, run) for number in range(count)]) for run, (name, count) in enumerate(runs)
    ]
    commands = pushes(Posting([(name, text)], []) for name, texts in pushed for text in texts)
    expected = [resp.pack(("LPUSH", name, *texts)) for name, texts in pushed]
    assert list(map(resp.pack, commands)) == expected


@pytest.mark.parametrize("count", [20, 2000])
def test_a_command_is_packed_as_hiredis_packs_it_however_long_it_is(count):
    words = ["", "a q\u00fceue", b"text\r\n", b"x" * 5000, 0, -17, 86400, 0.25, 1732350000.123456, 1e-7, 1e22]
    command = ("EVALSHA", *words, *(f"word {number}" for number in range(count)))
    assert resp.pack(command) == pack_command(command)
