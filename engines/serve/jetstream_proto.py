"""The messages of JetStream's gRPC contract, built here from their fields.

They are descriptors in code, not files that protoc made: a generated file is tied to the version
of protobuf that made it, and needs the compiler for every change. Names and numbers of the fields
are JetStream's (package jetstream_proto, service Orchestrator), so its clients work unchanged.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "jetstream_proto"
SERVICE = f"{PACKAGE}.Orchestrator"
TYPES = {
    "int32": FieldDescriptorProto.TYPE_INT32,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
}
# message: fields as (number, name, type, "repeated" or the oneof it is in or "")
MESSAGES: dict[str, list[tuple[int, str, str, str]]] = {
    "DecodeRequest.TextContent": [(1, "text", "string", "")],
    "DecodeRequest.TokenContent": [(1, "token_ids", "int32", "repeated")],
    "DecodeRequest.Metadata": [(1, "start_time", "float", "")],
    "DecodeRequest": [
        (4, "max_tokens", "int32", ""),
        (5, "text_content", "DecodeRequest.TextContent", "content"),
        (6, "token_content", "DecodeRequest.TokenContent", "content"),
        (7, "metadata", "DecodeRequest.Metadata", "metadata_optional"),
        (8, "num_samples", "int32", ""),
        (9, "lora_adapter_id", "string", ""),
        (10, "has_bos", "bool", ""),
    ],
    "DecodeResponse.InitialContent": [],
    "DecodeResponse.StreamContent.Sample": [
        (1, "text", "string", ""),
        (2, "token_ids", "int32", "repeated"),
    ],
    "DecodeResponse.StreamContent": [
        (1, "samples", "DecodeResponse.StreamContent.Sample", "repeated"),
    ],
    "DecodeResponse": [
        (2, "initial_content", "DecodeResponse.InitialContent", "content"),
        (3, "stream_content", "DecodeResponse.StreamContent", "content"),
    ],
    "HealthCheckRequest": [],
    "HealthCheckResponse": [(1, "is_live", "bool", "")],
}


def file_descriptor() -> FileDescriptorProto:
    """The whole file, for those who want to talk to the server from it alone."""
    file = FileDescriptorProto(name="jetstream.proto", package=PACKAGE, syntax="proto3")
    for name, fields in sorted(MESSAGES.items(), key=lambda item: item[0].count(".")):
        *above, last = name.split(".")
        message = _added(_message(file, above), last)
        for field in fields:
            _add_field(message, *field)
    service = file.service.add(name="Orchestrator")
    for method, streams in (("Decode", True), ("HealthCheck", False)):
        service.method.add(
            name=method,
            input_type=f".{PACKAGE}.{method}Request",
            output_type=f".{PACKAGE}.{method}Response",
            server_streaming=streams,
        )
    return file


def _message(file: FileDescriptorProto, names: list[str]) -> Any:
    """The message that these nested names lead to, or the file."""
    place: Any = file
    for name in names:
        inside = place.message_type if place is file else place.nested_type
        place = next(message for message in inside if message.name == name)
    return place


def _added(place: Any, name: str) -> DescriptorProto:
    inside = place.message_type if isinstance(place, FileDescriptorProto) else place.nested_type
    message: DescriptorProto = inside.add(name=name)
    return message


def _add_field(message: DescriptorProto, number: int, name: str, kind: str, place: str) -> None:
    field = message.field.add(number=number, name=name)
    repeated = place == "repeated"
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind in TYPES:
        field.type = TYPES[kind]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    if place and not repeated:
        if place not in [each.name for each in message.oneof_decl]:
            message.oneof_decl.add(name=place)
        field.oneof_index = [each.name for each in message.oneof_decl].index(place)


# A pool of its own: the same names may be known to a client in this process.
_POOL = DescriptorPool()
_POOL.Add(file_descriptor())


def _made(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


DecodeRequest = _made("DecodeRequest")
DecodeResponse = _made("DecodeResponse")
HealthCheckResponse = _made("HealthCheckResponse")
