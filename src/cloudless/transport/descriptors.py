"""Descriptors for reflection and health: a pool of our own, built when a server starts.

Generated code carries no protobuf descriptors, so the server gets them as a serialized
FileDescriptorSet; health and reflection are few messages and are described here. The pool
is private: the process-wide one belongs to whoever imports other generated code.
Imported by servers only, because protobuf is.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
}
HEALTH = "grpc.health.v1"
REFLECTION_VERSIONS = ("v1", "v1alpha")


def build_pool(descriptor_set: bytes | None) -> descriptor_pool.DescriptorPool:
    """A pool with the given files, health and both reflection versions.

    Raises ``ValueError`` when ``descriptor_set`` is no complete FileDescriptorSet.
    """
    files = descriptor_pb2.FileDescriptorSet()
    try:
        files.ParseFromString(descriptor_set or b"")
    except Exception as error:
        raise ValueError(f"not a FileDescriptorSet: {error}") from None
    pool = descriptor_pool.DescriptorPool()
    ours = [_health_file(), *(_reflection_file(version) for version in REFLECTION_VERSIONS)]
    waiting = [*files.file, *ours]
    known: set[str] = set()
    while waiting:
        ready = [file for file in waiting if known.issuperset(file.dependency)]
        if not ready:
            missing = sorted({name for file in waiting for name in file.dependency} - known)
            raise ValueError(f"the descriptor set lacks {', '.join(missing)}")
        for file in ready:
            if file.name not in known:
                pool.Add(file)
                known.add(file.name)
        waiting = [file for file in waiting if file.name not in known]
    return pool


def message_class(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    """The protobuf class of a message in ``pool``, by its full name."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _health_file() -> descriptor_pb2.FileDescriptorProto:
    file = _file("grpc/health/v1/health.proto", HEALTH)
    _message(file, "HealthCheckRequest", "service:string")
    response = _message(file, "HealthCheckResponse")
    statuses = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        statuses.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_ENUM,
        type_name=f".{HEALTH}.HealthCheckResponse.ServingStatus",
    )
    service = file.service.add(name="Health")
    for name in ("Check", "Watch"):
        service.method.add(
            name=name,
            input_type=f".{HEALTH}.HealthCheckRequest",
            output_type=f".{HEALTH}.HealthCheckResponse",
            server_streaming=name == "Watch",
        )
    return file


def _reflection_file(version: str) -> descriptor_pb2.FileDescriptorProto:
    package = f"grpc.reflection.{version}"
    file = _file(f"grpc/reflection/{version}/reflection.proto", package)
    request = _message(
        file,
        "ServerReflectionRequest",
        "host:string",
        None,
        "file_by_filename:string",
        "file_containing_symbol:string",
        "file_containing_extension:ExtensionRequest",
        "all_extension_numbers_of_type:string",
        "list_services:string",
    )
    _oneof(request, "message_request", first=3)
    _message(file, "ExtensionRequest", "containing_type:string", "extension_number:int32")
    response = _message(
        file,
        "ServerReflectionResponse",
        "valid_host:string",
        "original_request:ServerReflectionRequest",
        None,
        "file_descriptor_response:FileDescriptorResponse",
        "all_extension_numbers_response:ExtensionNumberResponse",
        "list_services_response:ListServiceResponse",
        "error_response:ErrorResponse",
    )
    _oneof(response, "message_response", first=4)
    _message(file, "FileDescriptorResponse", "*file_descriptor_proto:bytes")
    _message(file, "ExtensionNumberResponse", "base_type_name:string", "*extension_number:int32")
    _message(file, "ListServiceResponse", "*service:ServiceResponse")
    _message(file, "ServiceResponse", "name:string")
    _message(file, "ErrorResponse", "error_code:int32", "error_message:string")
    method = file.service.add(name="ServerReflection").method.add(name="ServerReflectionInfo")
    method.input_type = f".{package}.ServerReflectionRequest"
    method.output_type = f".{package}.ServerReflectionResponse"
    method.client_streaming = method.server_streaming = True
    return file


def _file(name: str, package: str) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")


def _message(file: Any, name: str, *fields: str | None) -> Any:
    """Add a message; fields are ``name:type`` in order of number, ``*`` repeated, None a gap."""
    message = file.message_type.add(name=name)
    for number, text in enumerate(fields, 1):
        if text is None:
            continue
        label, kind = text.lstrip("*").split(":")
        field = message.field.add(name=label, number=number)
        field.label = _Field.LABEL_REPEATED if text[0] == "*" else _Field.LABEL_OPTIONAL
        if kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{file.package}.{kind}"
    return message


def _oneof(message: Any, name: str, first: int) -> None:
    message.oneof_decl.add(name=name)
    for field in message.field:
        if field.number >= first:
            field.oneof_index = 0
