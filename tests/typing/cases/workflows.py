"""Workflows keep the type of the value that they come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

from celery import Celery, chain, chord, chunks, group
from celery.canvas import Signature
from celery.canvas.composed import Composed
from celery.result import AsyncResult, EagerResult, GroupResult

app = Celery("cases")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def text(number: int) -> str:
    return str(number)


@app.task
def total(values: list[int]) -> int:
    return sum(values)


def calls() -> Iterator[Signature[int]]:
    yield add.s(1, 2)


# What follows says what comes out.
assert_type(add.s(1, 2) | text.s(), Composed[str])
assert_type((add.s(1, 2) | text.s()).delay(), AsyncResult[str])
assert_type((add.s(1, 2) | text.s()).apply_async().get(), str)
assert_type((add.s(1, 2) | add.s(3) | text.s()).tasks, Any)
assert_type(chain(add.s(1, 2), add.s(3), text.s()), chain[str])
assert_type(chain(add.s(1, 2), text.s()).delay(), AsyncResult[str])
assert_type(chain(add.s(1, 2), text.s()).apply(), EagerResult[str])

# A group is a list to what follows it, and to who waits for it.
assert_type(group(add.s(1, 2), add.s(3, 4)), group[int])
assert_type(group(calls()), group[int])
assert_type(group(add.s(1, 2), add.s(3, 4)).delay(), GroupResult[int])
assert_type(group(add.s(1, 2), add.s(3, 4)).apply_async().get(), list[int])
assert_type(add.s(1, 2) | group(text.s(), text.s()), Composed[list[str]])
assert_type(group(add.s(1, 2), add.s(3, 4)) | total.s(), Composed[int])

# A chord is its body.
assert_type(chord([add.s(1, 2)], total.s()), chord[int])
assert_type(chord([add.s(1, 2)], total.s()).delay().get(), int)
assert_type(chord(calls(), total.s()) | text.s(), Composed[str])
assert_type(chord([add.s(1, 2)])(total.s()), Any)

# Maps.
assert_type(total.map([[1], [2]]).delay().get(), list[int])
assert_type(add.starmap([(1, 2)]).apply_async(), AsyncResult[list[int]])
assert_type(add.chunks([(1, 2)], 10), chunks)

# Workflows are made of signatures.
add.s(1, 2) | 3  # error
add.s(1, 2) | add  # error
