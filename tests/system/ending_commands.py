"""A remote control command that ends the attempt of a task by its request, as people's own commands may."""

from celery.worker.control import control_command
from celery.worker.state import requests


@control_command()
def end_attempt(state, task_id, how, options):
    getattr(requests[task_id], how)(state.consumer.pool, **options)
    return {"ok": how}
