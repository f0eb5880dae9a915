"""A remote control command that ends the attempt of a task by its request, as people's own commands may; and the ledger
says which tasks were revoked.
"""

from project import note

from celery import signals
from celery.worker.control import control_command
from celery.worker.state import requests


@control_command()
def end_attempt(state, task_id, how, options):
    getattr(requests[task_id], how)(state.consumer.pool, **options)
    return {"ok": how}


@signals.task_revoked.connect
def revoked(sender, request, terminated, signum, expired, **_):
    note("revoked", f"{request.id}:{terminated}:{signum}:{expired}")
