"""The documented place of the cache backend; `celery.backends.memory` is the one there is."""

from celery.backends.memory import MemoryBackend as CacheBackend

__all__ = ("CacheBackend",)
