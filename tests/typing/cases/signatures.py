"""What type checkers make of signatures. `# error` marks a line where each of them must complain."""

from __future__ import annotations

from typing import Any, assert_type

from celery import Celery, Signature, maybe_signature, signature
from celery.result import AsyncResult

app = Celery("typing", broker="memory://")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def render(page: bytes, template: str, *, theme: str) -> str:
    return template + theme


@app.task(bind=True)
async def store(self: Any, text: str, path: str) -> None: ...


@app.task
def many(a: int, b: int, c: int, d: int, e: str) -> bool:
    return True


# A signature has the value of its task.

assert_type(add.s(1, 2), Signature[int])
assert_type(add.s(1, 2).delay(), AsyncResult[int])
assert_type(add.s(2).delay(2).get(), int)
assert_type(add.s(1, 2).apply_async(countdown=1).get(), int)
assert_type(add.s(1, 2).apply().get(), int)
assert_type(add.s(1, 2)(), int)
assert_type(~add.s(1, 2), int)
assert_type(store.s("text", "path").delay(), AsyncResult[None])

# Partial signatures: what is missing comes first.

assert_type(add.s(2), Signature[int])
assert_type(add.s(), Signature[int])
assert_type(add.s(y=2), Signature[int])
assert_type(render.s("page.html", theme="dark"), Signature[str])
assert_type(render.s(b"", "page.html", theme="dark"), Signature[str])
assert_type(render.s(theme="dark"), Signature[str])
assert_type(store.s("path"), Signature[None])
assert_type(many.s("e"), Signature[bool])
assert_type(many.s(3, 4, "e"), Signature[bool])
assert_type(many.s(1, 2, 3, 4, "e"), Signature[bool])
add.s("2")  # error
add.s(1, "2")  # error
add.s(1, 2, 3)  # error
render.s("page.html", theme=1)  # error
render.s(1, "page.html", theme="dark")  # error
store.s(1)  # error
many.s(5)  # error

# Immutable ones take no more arguments, so they need all of theirs.

assert_type(add.si(1, 2), Signature[int])
assert_type(add.si(x=1, y=2), Signature[int])
add.si(1)  # error
add.si(1, "2")  # error
render.si(b"", "page.html")  # error

# Whatever changes a signature leaves its value.

assert_type(add.s(1, 2).set(queue="fast"), Signature[int])
assert_type(add.s(1, 2).clone(), Signature[int])
assert_type(add.s(1, 2).clone(kwargs={"z": 3}, countdown=3), Signature[int])
assert_type(add.s(1, 2).replace(args=(3, 4)), Signature[int])
assert_type(add.s(1, 2).on_error(add.s(1, 2)), Signature[int])
assert_type(add.s(1, 2).freeze(), AsyncResult[int])
assert_type(add.signature((1, 2), {"z": 3}, immutable=True), Signature[int])
assert_type(signature("tasks.add", args=(1, 2)), Signature[Any])
assert_type(maybe_signature({"task": "tasks.add"}), Signature[Any] | None)
assert_type(app.signature("tasks.add"), Signature[Any])
assert_type(add.s(1, 2).args, tuple[Any, ...])
assert_type(add.s(1, 2).options, dict[str, Any])
assert_type(add.s(1, 2).id, str | None)
sent: AsyncResult[str] = add.s(1, 2).delay()  # error
add.s(1, 2).nope()  # error
