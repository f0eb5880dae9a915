"""Broker drivers. Each knows its own store; what all of them promise is in `celery.brokers.base`."""
