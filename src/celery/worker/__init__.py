"""The worker: one brain per node, in batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.worker.worker import WorkController as WorkController

__all__ = ("WorkController",)


def __getattr__(name: str) -> Any:
    # Modules of this package are imported for themselves too, without a worker.
    if name == "WorkController":
        from celery.worker.worker import WorkController

        return WorkController
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
