"""Task classes and bases of one's own. `# error` marks a line where each checker must complain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from celery import Celery, Task
from celery.result import AsyncResult

app = Celery("typing", broker="memory://")


class Counting(Task[[int, int], float]):
    name = "counting"
    max_retries = None
    acks_late = True

    def run(self, x: int, y: int) -> float:
        return x / y

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.update_state(state="NOTED", meta={"exc": str(exc)})


counting = Counting()
app.register_task(counting)
assert_type(counting.delay(1, 2), AsyncResult[float])
assert_type(counting.apply_async((1, 2)).get(), float)
counting.delay("1", 2)  # error
counting.apply_async((1,))  # error


class Audited(Task[..., Any]):
    tenant: str = ""

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *more: Any,
        **options: Any,
    ) -> AsyncResult[Any]:
        return super().apply_async(list(args or ()), kwargs, **options)


@app.task(base=Audited, bind=True)
def audited(self: Audited, key: str) -> str:
    assert_type(self.tenant, str)
    return self.tenant + key


assert_type(audited.delay("a"), AsyncResult[str])
audited.delay(1)  # error
assert_type(app.tasks["counting"].delay(1, "2"), AsyncResult[Any])
