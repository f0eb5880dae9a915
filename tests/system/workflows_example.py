"""The project of docs/workflows.md, in one process."""

from __future__ import annotations

from celery import Celery

app = Celery("workflows_example", broker="memory://docs", backend="cache+memory://docs", set_as_current=False)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def mul(x: int, y: int) -> int:
    return x * y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def report(values: object) -> object:
    return values


@app.task
def boom(word: str) -> None:
    raise ValueError(word)
