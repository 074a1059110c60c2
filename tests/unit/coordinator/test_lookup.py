"""What people type for a replica: an ordinal, or the beginning of an id, and never one for the other."""

from __future__ import annotations

import datetime

import pytest

from cloudless.coordinator.services.lookup import find_replicas
from cloudless.domain.cluster import Cluster
from cloudless.domain.errors import Invalid, NotFound
from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
WEB = WorkloadRecord(
    id="w1",
    namespace="default",
    name="web",
    spec=WorkloadSpec.model_validate({"image": "web:1"}),
    created_at=NOW,
    updated_at=NOW,
)


def found(text: str, **ordinals: int) -> list[str]:
    """Ids of the replicas that are meant, of those given by id (with an underscore before digits)."""
    cluster = Cluster()
    cluster.put_workload(WEB)
    for name, ordinal in ordinals.items():
        cluster.put_replica(
            ReplicaRecord(
                id=name.lstrip("_"),
                workload_id="w1",
                namespace="default",
                name="web",
                ordinal=ordinal,
                revision=1,
                created_at=NOW,
            )
        )
    return [one.id for one in find_replicas(cluster, WEB, text)]


def test_an_ordinal_is_no_beginning_of_an_id() -> None:
    assert found("7", _767zf=0, abc=7) == ["abc"]
    with pytest.raises(NotFound, match="has no replica 7"):
        found("7", _767zf=0)
    assert found("767", abc=767, _767zf=0) == ["abc"]
    assert found("767z", abc=767, _767zf=0) == ["767zf"]
    assert found("767222", _767222x=0) == ["767222x"], "no workload has so many"


def test_two_of_one_ordinal_while_one_takes_over_from_the_other() -> None:
    assert found("0", abc=0, abd=0, xyz=1) == ["abc", "abd"]


def test_the_beginning_of_several_ids_is_refused() -> None:
    assert found("AbC", abc=0, abd=1) == ["abc"]
    with pytest.raises(Invalid, match="'ab' is the beginning of 2 ids: abc, abd"):
        found("ab", abc=0, abd=1)
    assert found("", abc=1, abd=0) == ["abd", "abc"]
