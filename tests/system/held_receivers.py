"""A module of a project with a receiver in the main process that takes its time."""

from project import note, wait_for_gate

from celery.signals import task_received


@task_received.connect(weak=False)
def hold(request, **_):
    gate = request.headers.get("gate")
    if gate:
        note("received", gate)
        wait_for_gate(gate)
