from types import SimpleNamespace

import pytest
from ray.air.execution._internal import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

from search.cluster.execution import lost_workers_known


def failed(error):
    """What Tune is told of an error of an actor's task."""
    told = []
    actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, error: told.append(error))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    RayActorManager._actor_task_failed(manager, SimpleNamespace(_tracked_actor=actor, _on_error=None), error)
    return told


@pytest.mark.parametrize(
    "error",
    [OutOfMemoryError("low on memory"), NodeDiedError("node gone"), WorkerCrashedError()],
    ids=lambda e: type(e).__name__,
)
def test_a_worker_that_ray_lost_is_an_actor_that_died(error):
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):  # Tune ends everything
        failed(error)
    with lost_workers_known():
        [told] = failed(error)
    assert isinstance(told, RayActorError)
    assert str(told) == str(error)
