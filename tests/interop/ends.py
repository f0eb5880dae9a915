"""What becomes of retries and refusals, in place, without a broker: the same lines from both Celerys."""

from celery import Celery
from celery.exceptions import Reject

app = Celery("ends", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True


class Noting(app.Task):
    """Says which hooks it is called by, and with what."""

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        print("on_retry", type(exc).__name__)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print("on_failure", type(exc).__name__, exc)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        print("after_return", status, type(retval).__name__)


@app.task(bind=True, base=Noting, name="again", max_retries=1, default_retry_delay=0)
def again(self, given):
    """Fail and retry, with the exception or without."""
    try:
        raise KeyError("lost")
    except KeyError as error:
        raise self.retry(exc=error if given else None)


@app.task(bind=True, base=Noting, name="bare", max_retries=1, default_retry_delay=0)
def bare(self):
    """Retry with nothing at hand."""
    raise self.retry()


@app.task(base=Noting, name="refuse")
def refuse():
    """Be refused, to run again."""
    raise Reject("no", requeue=True)


def main():
    """Say how each ends."""
    for task, args in ((again, (True,)), (again, (False,)), (bare, ()), (refuse, ())):
        print("--", task.name, *args)
        result = task.apply(args)
        print(result.state, type(result.result).__name__)
        try:
            task(*args)
        except Exception as error:
            print("called", type(error).__name__, type(error.__cause__).__name__)


if __name__ == "__main__":
    main()
