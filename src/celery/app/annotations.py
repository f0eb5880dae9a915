"""`task_annotations`: task attributes from configuration (SET-168)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery.utils.imports import instantiate

__all__ = ("MapAnnotation", "prepare", "resolve_all")


class MapAnnotation(dict[str, Any]):
    """Annotations by task name, with "*" for every task."""

    def annotate_any(self) -> dict[str, Any] | None:
        """For every task."""
        found = self.get("*")
        return dict(found) if found is not None else None

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """For one task."""
        found = self.get(task.name)
        return dict(found) if found is not None else None


def prepare(annotations: Any) -> tuple[Any, ...]:
    """The setting in any form as objects with `annotate` and `annotate_any`; strings are import paths of these."""
    if annotations is None:
        return ()
    if isinstance(annotations, Mapping) or not isinstance(annotations, Iterable) or isinstance(annotations, str):
        annotations = (annotations,)
    return tuple(_prepared(annotation) for annotation in annotations)


def _prepared(annotation: Any) -> Any:
    if isinstance(annotation, Mapping):
        return MapAnnotation(annotation)
    return instantiate(annotation) if isinstance(annotation, str) else annotation


def resolve_all(anno: Iterable[Any], task: Any) -> Iterator[dict[str, Any]]:
    """What applies to a task: the general before the particular."""
    for annotation in anno:
        for found in (annotation.annotate_any(), annotation.annotate(task)):
            if found:
                yield found
