"""Models as parameters and values of tasks (API-048, API-049)."""

from __future__ import annotations

import asyncio
import datetime
from typing import Optional

import pytest
from pydantic import BaseModel, ValidationError, ValidationInfo, field_validator

from celery import Celery, signals
from celery.exceptions import EncodeError, ImproperlyConfigured


class Order(BaseModel):
    number: int
    at: datetime.datetime | None = None


class Priority(Order):
    level: int = 1


class Told(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def add_context(cls, value, info: ValidationInfo):
        seen.append({**(info.context or {})})
        return value


seen: list[dict] = []


@pytest.fixture
def app():
    with Celery("w", broker="memory://") as made:
        yield made


@pytest.fixture
def sent():
    messages = []

    def keep(body, **_):
        messages.append(body[:2])

    signals.before_task_publish.connect(keep)
    yield messages
    signals.before_task_publish.disconnect(keep)


def test_arguments_become_models_and_a_model_becomes_data(app):
    @app.task(pydantic=True)
    def work(order: Order, other: Optional[Order] = None, third: Order | None = None, plain: int = 1) -> Order:  # noqa: UP045 - both spellings
        assert {type(order), type(other), type(third), type(plain)} == {Order, Order, type(None), int}
        return Order(number=order.number + other.number)

    result = work.apply(({"number": 1}, {"number": 2}), {"third": None}).get()
    assert result == {"number": 3, "at": None}


def test_a_bound_coroutine_takes_models_too(app):
    @app.task(pydantic=True, bind=True)
    async def work(self, order: Order) -> Order | None:
        await asyncio.sleep(0)
        return order if self.request.id else None

    assert work.apply(({"number": 1},)).get()["number"] == 1


def test_data_that_does_not_fit_is_refused(app):
    @app.task(pydantic=True)
    def work(order: Order): ...

    @app.task(pydantic=True, pydantic_strict=True)
    def strict(order: Order): ...

    assert work.apply(({"number": "1"},)).successful()
    for result in (work.apply(({"number": "one"},)), strict.apply(({"number": "1"},))):
        with pytest.raises(ValidationError, match="number"):
            result.get()


def test_validators_are_told_whose_argument_it_is(app):
    @app.task(pydantic=True, name="told", pydantic_context={"tenant": "a"})
    def work(told: Told): ...

    seen.clear()
    work.apply(({"value": 1},))
    assert [(each["celery_app"], each["celery_task_name"], each["tenant"]) for each in seen] == [(app, "told", "a")]


def test_dumping_can_be_configured(app):
    @app.task(pydantic=True, pydantic_dump_kwargs={"exclude_none": True})
    def work() -> Order:
        return Order(number=1)

    assert work.apply().get() == {"number": 1}


def test_another_value_than_the_annotated_model_stays(app):
    @app.task(pydantic=True)
    def work() -> Order:
        return Told(value=1)

    assert isinstance(work.apply().get(), Told)


def test_a_model_is_sent_as_data(app, sent):
    @app.task(pydantic=True)
    def work(order: Order, plain: int = 1): ...

    @app.task(pydantic=True, bind=True)
    def bound(self, order: Order): ...

    order = Order(number=1, at=datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC))
    form = {"number": 1, "at": "2026-11-22T00:00:00Z"}
    work.delay(order, plain=2)
    work.delay(order=order)
    bound.delay(order)
    assert sent == [([form], {"plain": 2}), ([], {"order": form}), ([form], {})]


def test_a_model_that_would_lose_something_is_left_to_the_serializer(app, sent):
    @app.task(pydantic=True)
    def work(order: Order, *rest): ...

    @app.task
    def plain(order): ...

    for refused in (
        lambda: work.delay(Priority(number=1)),
        lambda: work.delay({"number": 1}, Order(number=1)),
        lambda: plain.delay(Order(number=1)),
    ):
        with pytest.raises(EncodeError):
            refused()
    assert not sent


def test_pickle_carries_models_as_they_are(app):
    app.conf.accept_content = ["pickle", "json"]

    @app.task(pydantic=True, serializer="pickle")
    def work(order: Order): ...

    bodies = []

    def keep(body, **_):
        bodies.append(body[0])

    signals.after_task_publish.connect(keep)
    try:
        work.delay(Order(number=1))
    finally:
        signals.after_task_publish.disconnect(keep)
    assert [list(args) for args in bodies] == [[Order(number=1)]]


def test_an_annotation_that_cannot_be_resolved_is_named(app):
    @app.task(pydantic=True, name="unresolved", shared=False)  # else every later application would try it
    def work(order: Missing): ...  # noqa: F821 - the point

    with pytest.raises(ImproperlyConfigured, match=r"unresolved.*'Missing'"):
        work.apply()
