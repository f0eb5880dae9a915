"""What type checkers make of tasks. `# error` marks a line where each of them must complain."""

from __future__ import annotations

from typing import Any, assert_type

from celery import Celery, Task, shared_task
from celery.result import AsyncResult, EagerResult

app = Celery("typing", broker="memory://")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task()
def greet(name: str, greeting: str = "Hello") -> str:
    return f"{greeting} {name}"


@app.task(name="typing.search", queue="fast")
def search(text: str, *, limit: int = 10) -> list[str]:
    return [text] * limit


@app.task(bind=True, max_retries=5)
def fetch(self: Task[..., Any], url: str, timeout: float) -> bytes:
    assert_type(self.request.retries, int)
    raise self.retry(countdown=timeout)


@app.task(bind=False)
def total(*numbers: int) -> int:
    return sum(numbers)


@app.task
def nothing() -> None: ...


@app.task
async def download(url: str) -> bytes:
    return url.encode()


@app.task(bind=True)
async def bound_download(self: Any, url: str) -> bytes:
    return url.encode()


@app.task(ignore_result=True)
async def async_with_options(size: int) -> float:
    return size / 2


@shared_task
def double(number: float) -> float:
    return number * 2


@shared_task(bind=True, name="typing.shared")
def shared_bound(self: Any, key: str) -> dict[str, int]:
    return {key: 1}


@shared_task(acks_late=True)
async def shared_async(key: str) -> set[str]:
    return {key}


@app.task
def many(a: int, b: int, c: int, d: int, e: str, f: str) -> bool:
    return True


@app.task
def containers(numbers: list[int], names: dict[str, float], limit: int | None) -> None: ...


@app.task
def strict(x: int, *, mode: str) -> int:
    return x


@app.task
def untyped(x, y=None):  # type: ignore[no-untyped-def] # what many projects have
    return x


# A task has the parameters of its body, and its value.

assert_type(add(1, 2), int)
assert_type(greet("you"), str)
assert_type(fetch("http://localhost", 1.0), bytes)
assert_type(search("word", limit=3), list[str])
assert_type(download("http://localhost"), bytes)
add("1", 2)  # error
add(1)  # error
add(1, 2, 3)  # error
add(1, z=2)  # error
fetch("http://localhost", "soon")  # error
greet("you", greeting=None)  # error

# delay() is called as the body is.

assert_type(add.delay(1, 2), AsyncResult[int])
assert_type(add.delay(x=1, y=2), AsyncResult[int])
assert_type(greet.delay("you"), AsyncResult[str])
assert_type(greet.delay("you", greeting="Hi"), AsyncResult[str])
assert_type(search.delay("word", limit=1), AsyncResult[list[str]])
assert_type(fetch.delay("http://localhost", 0.5), AsyncResult[bytes])
assert_type(total.delay(1, 2, 3), AsyncResult[int])
assert_type(nothing.delay(), AsyncResult[None])
assert_type(download.delay("http://localhost"), AsyncResult[bytes])
assert_type(bound_download.delay("http://localhost"), AsyncResult[bytes])
assert_type(async_with_options.delay(3), AsyncResult[float])
assert_type(double.delay(1.5), AsyncResult[float])
assert_type(shared_bound.delay("a"), AsyncResult[dict[str, int]])
assert_type(shared_async.delay("a"), AsyncResult[set[str]])
untyped.delay(1)
untyped.delay("1", y=object())
add.delay("1", 2)  # error
add.delay(1)  # error
add.delay(1, 2, 3)  # error
add.delay(1, y="2")  # error
greet.delay("you", tone="warm")  # error
search.delay("word", 10)  # error
fetch.delay(b"http://localhost", 0.5)  # error
fetch.delay("http://localhost")  # error
total.delay(1, "2")  # error
nothing.delay(1)  # error
download.delay(1)  # error
bound_download.delay()  # error
double.delay("1.5")  # error
shared_bound.delay(1)  # error
shared_async.delay(b"a")  # error

# A tuple of arguments is checked; a list, and what comes with keywords, is taken as it is.

assert_type(add.apply_async((1, 2)), AsyncResult[int])
assert_type(add.apply_async(args=(1, 2), countdown=3, queue="fast"), AsyncResult[int])
assert_type(greet.apply_async(("you",)), AsyncResult[str])
assert_type(greet.apply_async(("you", "Hi")), AsyncResult[str])
assert_type(nothing.apply_async(), AsyncResult[None])
assert_type(nothing.apply_async(()), AsyncResult[None])
assert_type(fetch.apply_async(("http://localhost", 0.5)), AsyncResult[bytes])
assert_type(download.apply_async(("http://localhost",)), AsyncResult[bytes])
assert_type(search.apply_async(("word",)), AsyncResult[list[str]])
assert_type(many.apply_async((1, 2, 3, 4, "e", "f")), AsyncResult[bool])
containers.apply_async(([1, 2], {"a": 1}, None))
containers.apply_async(([], {}, 3))
total.apply_async((1, 2, 3))
total.apply_async((1, 2, 3, 4, 5))
assert_type(add.apply_async([1, 2]), AsyncResult[int])
assert_type(add.apply_async((1,), {"y": 2}), AsyncResult[int])
assert_type(add.apply_async(kwargs={"x": 1, "y": 2}, priority=3), AsyncResult[int])
assert_type(strict.apply_async((1,), {"mode": "fast"}), AsyncResult[int])
add.apply_async((1, 2), None)
add.apply_async((1, 2), {}, "an-id")
untyped.apply_async((1, 2))
add.apply_async((1, "2"))  # error
add.apply_async((1,))  # error
add.apply_async((1, 2, 3))  # error
add.apply_async(args=("1", 2), countdown=3)  # error
greet.apply_async(("you", 2))  # error
greet.apply_async(())  # error
nothing.apply_async((1,))  # error
fetch.apply_async(("http://localhost", "soon"))  # error
total.apply_async((1, "2", 3))  # error
many.apply_async((1, 2, 3, 4, 5, "f"))  # error
download.apply_async((1,))  # error
containers.apply_async((["1"], {}, None))  # error
strict.apply_async((1,))  # error
add.apply_async({1, 2})  # error

# Running it here.

assert_type(add.apply((1, 2)), EagerResult[int])
assert_type(add.apply((1, 2)).get(), int)
assert_type(download.apply(("http://localhost",)).get(), bytes)
add.apply((1, "2"))  # error

# A task whose parameters nobody knows takes anything.

anything: Task[..., Any] = add
anything.delay(1, "2", three=3)
anything.apply_async((1, "2", 3, 4, 5))
anything.apply_async(())
anything.s(1, "2")
named: Task[[int, int], int] = add
wrong: Task[[str], int] = add  # error
