"""From the broker to the pool and back."""

from celery.worker.consumer.consumer import Consumer

__all__ = ("Consumer",)
