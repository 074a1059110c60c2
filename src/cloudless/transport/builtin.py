"""The services that every server of ours has: grpc.health.v1, and reflection v1, v1alpha.

``GuardedServer`` adds them. Health is set by the role that owns the server; reflection
answers from the server's descriptor pool. Neither knows what the other services do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Method

from cloudless.domain.errors import NotFound
from cloudless.transport.descriptors import HEALTH, message_class

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3


class Health:
    """grpc.health.v1.Health; the service name ``""`` speaks for the whole server.

    A new server is not serving until its role says ``set(True)``.
    """

    def __init__(self, pool: Any, services: Iterable[str]) -> None:
        self._request = message_class(pool, f"{HEALTH}.HealthCheckRequest")
        self._response = message_class(pool, f"{HEALTH}.HealthCheckResponse")
        self._serving = dict.fromkeys(["", *services], False)
        self._changed = asyncio.Event()

    def set(self, serving: bool, *services: str) -> None:
        """Say whether ``services`` (all of them and the server itself, when none) serve."""
        for name in services or tuple(self._serving):
            self._serving[name] = serving
        self._changed.set()
        self._changed = asyncio.Event()

    def __mapping__(self) -> dict[str, Method]:
        kinds = self._request, self._response
        return {
            f"/{HEALTH}.Health/Check": Method(self._check, Cardinality.UNARY_UNARY, *kinds),
            f"/{HEALTH}.Health/Watch": Method(self._watch, Cardinality.UNARY_STREAM, *kinds),
        }

    def _status(self, service: str) -> int | None:
        serving = self._serving.get(service)
        return None if serving is None else _SERVING if serving else _NOT_SERVING

    async def _check(self, stream: Any) -> None:
        service = (await stream.recv_message()).service
        status = self._status(service)
        if status is None:
            raise NotFound(f"there is no service {service[:200]!r}")
        await stream.send_message(self._response(status=status))

    async def _watch(self, stream: Any) -> None:
        service = (await stream.recv_message()).service
        sent = None
        while True:
            changed = self._changed
            status = self._status(service) or _SERVICE_UNKNOWN
            if status != sent:
                await stream.send_message(self._response(status=status))
                sent = status
            await changed.wait()


class Reflection:
    """grpc.reflection: what services there are, and the files that describe them."""

    def __init__(self, pool: Any, version: str, services: Iterable[str]) -> None:
        package = f"grpc.reflection.{version}"
        self._pool = pool
        self._services = tuple(services)
        self._path = f"/{package}.ServerReflection/ServerReflectionInfo"
        self._request = message_class(pool, f"{package}.ServerReflectionRequest")
        self._response = message_class(pool, f"{package}.ServerReflectionResponse")

    def __mapping__(self) -> dict[str, Method]:
        kinds = self._request, self._response
        return {self._path: Method(self._info, Cardinality.STREAM_STREAM, *kinds)}

    async def _info(self, stream: Any) -> None:
        async for request in stream:
            response = self._response(valid_host=request.host, original_request=request)
            try:
                self._answer(request, response)
            except KeyError:
                response.error_response.error_code = Status.NOT_FOUND.value
                response.error_response.error_message = "not found"
            await stream.send_message(response)

    def _answer(self, request: Any, response: Any) -> None:
        pool, kind = self._pool, request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._describe(pool.FindFileByName(request.file_by_filename), response)
        elif kind == "file_containing_symbol":
            self._describe(self._file_of(request.file_containing_symbol), response)
        elif kind == "all_extension_numbers_of_type":
            message = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response.all_extension_numbers_response.base_type_name = message.full_name
        elif kind == "file_containing_extension":
            raise KeyError(kind)  # proto3 has no extensions of ours
        else:
            response.error_response.error_code = Status.INVALID_ARGUMENT.value
            response.error_response.error_message = "the request asks for nothing"

    def _file_of(self, symbol: str) -> Any:
        """The file of a service, message, or of a method or field within one."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])

    def _describe(self, file: Any, response: Any) -> None:
        """Add ``file`` and what it imports, so that a client needs one question."""
        waiting, seen = [file], set()
        while waiting:
            current = waiting.pop(0)
            if current.name in seen:
                continue
            seen.add(current.name)
            described = descriptor_pb2.FileDescriptorProto()
            current.CopyToProto(described)
            response.file_descriptor_response.file_descriptor_proto.append(described.SerializeToString())
            waiting.extend(current.dependencies)
