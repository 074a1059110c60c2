"""Pages are the generated message in other words, and workloads are read late but whole."""

from __future__ import annotations

import pytest

from cloudless import api
from cloudless.sdk.pages import WorkloadPage
from cloudless.sdk.workload import Workload
from cloudless.transport.codec import decode, encode
from cloudless.transport.errors import InternalError
from cloudless.transport.fieldplan import plan_fields


def test_a_page_has_the_fields_of_the_generated_message() -> None:
    generated, ours = (plan_fields(kind) for kind in (api.ListWorkloadsResponse, WorkloadPage))
    assert [(field.name, field.number, field.repeated) for field in ours] == [
        (field.name, field.number, field.repeated) for field in generated
    ]


def test_workloads_are_the_same_when_they_are_read_late() -> None:
    web = api.Workload(name="web", id="1", spec=api.WorkloadSpec(image="web:1", replicas=3))
    answer = api.ListWorkloadsResponse(workloads=[web], next_page_token="t", resource_version="7")
    page = decode(encode(answer), WorkloadPage)
    assert (page.next_page_token, page.resource_version) == ("t", "7")
    (late,) = map(Workload.of_bytes, page.workloads)
    assert late == Workload.of(web)
    assert late.spec.replicas == 3


def test_a_workload_that_cannot_be_read_is_an_error_of_the_server() -> None:
    with pytest.raises(InternalError, match="cannot be read: name"):
        _ = Workload.of_bytes(b"\x1a\x05ab").name
