"""A project that OpenTelemetry traces; its processes add spans to a file. As a script it is the project's client."""

import json
import os

from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from celery import Celery, signals

#: No result takes longer, in seconds.
SOON = 30
FOLDER = os.environ["PROJECT"]

app = Celery("spans", broker=f"sqlite:///{FOLDER}/celery.sqlite", backend=f"sqlite:///{FOLDER}/celery.sqlite")


class ToFile(SpanExporter):
    def export(self, spans):
        with open(f"{FOLDER}/told", "a") as file:
            for span in spans:
                told = {
                    "name": span.name,
                    "trace": span.context.trace_id,
                    "span": span.context.span_id,
                    "parent": span.parent and span.parent.span_id,
                    "status": span.status.status_code.name,
                    "errors": [event.attributes["exception.type"] for event in span.events],
                    "attributes": dict(span.attributes),
                }
                file.write(json.dumps(told) + "\n")
        return SpanExportResult.SUCCESS


@signals.worker_process_init.connect(weak=False)
def instrument(**_):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise KeyError("nothing")


@app.task(bind=True)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task
async def later(x):
    return x


if __name__ == "__main__":
    instrument()
    with trace.get_tracer("client").start_as_current_span("client"):
        sent = [add.delay(1, 2), fail.delay(), again.delay(), later.delay(3)]
    for result in sent:
        result.get(timeout=SOON, propagate=False)
