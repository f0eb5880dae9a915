"""Results: what a caller holds while, and after, a task runs (API-052..059).

`AsyncResult` is one task, `ResultSet` many in order, `GroupResult` a set with an id that can be saved, `EagerResult`
the outcome of a task that ran in place. Records, and the form in which results travel, are `celery.wire.results`.
"""

from __future__ import annotations

from celery.result.sets import GroupResult, ResultSet
from celery.result.single import AsyncResult, EagerResult, result_from_tuple
from celery.result.waiting import ResultBase, allow_join_result, assert_will_not_block, denied_join_result

__all__ = (
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
)
