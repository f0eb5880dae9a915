"""What type checkers make of results. `# error` marks a line where each of them must complain."""

from __future__ import annotations

from typing import Any, assert_type

from celery import Celery
from celery.result import AsyncResult, EagerResult, GroupResult, ResultSet

app = Celery("typing", broker="memory://")


@app.task
def add(x: int, y: int) -> int:
    return x + y


result = add.delay(1, 2)
assert_type(result.get(), int)
assert_type(result.get(timeout=1.5, propagate=False), int)
assert_type(result.wait(), int)
assert_type(result.id, str)
assert_type(result.state, str)
assert_type(result.ready(), bool)
assert_type(result.successful(), bool)
assert_type(result.traceback, str | None)
assert_type(result.retries, int | None)
assert_type(result.worker, str | None)
assert_type(result.then(print), AsyncResult[int])
assert_type(add.AsyncResult("id"), AsyncResult[int])
assert_type(add.apply((1, 2)), EagerResult[int])
result.get(timeout="soon")  # error
text: str = result.get()  # error
AsyncResult()  # error
result.nope  # error

several: ResultSet[int] = ResultSet([add.delay(1, 2), add.delay(3, 4)])
assert_type(several.get(), list[int])
assert_type(several.join(timeout=3), list[int])
assert_type(len(several), int)
assert_type(several.completed_count(), int)
words: list[str] = several.get()  # error
group: GroupResult[int] = GroupResult("id", [result])
assert_type(group.get(), list[int])
assert_type(GroupResult.restore("id"), GroupResult[Any] | None)


async def in_a_coroutine() -> None:
    assert_type(await add.adelay(1, 2), AsyncResult[int])
    assert_type(await add.aapply_async((1, 2), countdown=3), AsyncResult[int])
    assert_type(await result.aget(timeout=3), int)
    assert_type(await result.aready(), bool)
    assert_type(await several.aget(), list[int])
    assert_type(await add.s(1, 2).adelay(), AsyncResult[int])
    async for ready in several:
        ready.get()
    await add.adelay(1, "2")  # error
    await add.aapply_async((1, "2"))  # error
    _other: str = await result.aget()  # error
    add.adelay(1, 2).get()  # error
