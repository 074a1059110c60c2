"""Models to and from the bytes in the store: their JSON, nothing more.

Used by everything that reads or writes the store. The newest records that were written
or read are remembered by their bytes, because a coordinator sees most of what it writes
again in its own watch.
"""

from __future__ import annotations

from collections import OrderedDict

from pydantic import ValidationError

from cloudless.coordinator.limits import REMEMBERED_RECORDS
from cloudless.coordinator.state.keys import Kind
from cloudless.coordinator.state.records import ClusterRecord, RequestRecord
from cloudless.domain.errors import Fatal
from cloudless.domain.event import Event
from cloudless.domain.model import Model
from cloudless.domain.node import NodeRecord
from cloudless.domain.replica import Observation, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import JournalEntry
from cloudless.domain.status import StatusRecord
from cloudless.domain.workload import WorkloadRecord

_MODELS: dict[Kind, type[Model]] = {
    Kind.CLUSTER: ClusterRecord,
    Kind.WORKLOAD: WorkloadRecord,
    Kind.STATUS: StatusRecord,
    Kind.REVISION: Revision,
    Kind.REPLICA: ReplicaRecord,
    Kind.OBSERVATION: Observation,
    Kind.NODE: NodeRecord,
    Kind.EVENT: Event,
    Kind.REQUEST: RequestRecord,
    Kind.JOURNAL: JournalEntry,
}


class Unreadable(Fatal):
    """A stored record is not what this version writes; ``key`` says which one."""

    code = "CL-5002"

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"the stored record {key} cannot be read: {why}")
        self.key = key


class Codec:
    """Encodes and decodes records; one for each store, for one running loop."""

    def __init__(self) -> None:
        self._recent: OrderedDict[tuple[type[Model], bytes], Model] = OrderedDict()

    def encode(self, model: Model) -> bytes:
        """The bytes to store."""
        data = model.model_dump_json().encode()
        self._remember((type(model), data), model)
        return data

    def decode(self, kind: Kind, key: str, data: bytes) -> Model:
        """The model of stored bytes; raises ``Unreadable``."""
        model = _MODELS[kind]
        known = self._recent.get((model, data))
        if known is not None:
            return known
        try:
            found = model.model_validate_json(data)
        except ValidationError as error:
            raise Unreadable(key, str(error).replace("\n", " ")[:300]) from None
        self._remember((model, data), found)
        return found

    def _remember(self, what: tuple[type[Model], bytes], model: Model) -> None:
        self._recent[what] = model
        if len(self._recent) > REMEMBERED_RECORDS:
            self._recent.popitem(last=False)
