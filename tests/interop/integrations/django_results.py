"""A project whose results django-celery-results keeps; run as a script it is the project's client."""

import json
import os

import django
from django.conf import settings
from django.core.management import call_command

from celery import Celery
from celery.result import AsyncResult, GroupResult

#: No result takes longer, in seconds.
SOON = 30

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{os.environ['PROJECT']}/django.sqlite",
            "OPTIONS": {"timeout": SOON},
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_results"],
    USE_TZ=True,
)
django.setup()

app = Celery("django_results", broker=f"sqlite:///{os.environ['PROJECT']}/celery.sqlite", backend="django-db")
app.conf.update(result_extended=True, task_track_started=True)


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise KeyError("nothing")


def row_of(result):
    from django_celery_results.models import TaskResult

    row = TaskResult.objects.filter(task_id=result.id).first()
    return row and [row.status, row.task_name, row.task_args, row.task_kwargs, row.result, row.date_started is not None]


def main():
    call_command("migrate", verbosity=0)
    good, bad = add.delay(2, y=3), fail.delay()
    yield "value", good.get(timeout=SOON)
    yield "row", row_of(good)
    try:
        bad.get(timeout=SOON)
    except KeyError as exc:
        yield "error", [repr(exc), bad.state, bad.name, "KeyError" in bad.traceback]
    GroupResult("group", [good, bad], app=app).save()
    restored = GroupResult.restore("group", app=app)
    yield "group", [[each.id for each in restored] == [good.id, bad.id], restored[0].get(timeout=SOON)]
    restored.delete()
    yield "deleted", GroupResult.restore("group", app=app)
    good.forget()
    yield "forgotten", [row_of(good), AsyncResult(good.id, app=app).state]


if __name__ == "__main__":
    print(json.dumps(dict(main())))
