"""The messages of JetStream's gRPC contract, described in protobuf's own text form.

Names and numbers are those of its `jetstream.proto`. The classes are made when this is imported: a
file that a compiler generated would be tied to one version of protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.text_format import Parse

_PACKAGE = "jetstream_proto"
DECODE = f"/{_PACKAGE}.Orchestrator/Decode"
HEALTH_CHECK = f"/{_PACKAGE}.Orchestrator/HealthCheck"

_FILE = """
name: "jetstream.proto"  package: "jetstream_proto"  syntax: "proto3"
message_type {
  name: "DecodeRequest"
  nested_type { name: "TextContent"  field { name: "text" number: 1 type: TYPE_STRING } }
  nested_type {
    name: "TokenContent"
    field { name: "token_ids" number: 1 type: TYPE_INT32 label: LABEL_REPEATED }
  }
  nested_type { name: "Metadata"  field { name: "start_time" number: 1 type: TYPE_FLOAT } }
  oneof_decl { name: "content" }
  oneof_decl { name: "metadata_optional" }
  field { name: "max_tokens" number: 4 type: TYPE_INT32 }
  field {
    name: "text_content" number: 5 type: TYPE_MESSAGE oneof_index: 0
    type_name: ".jetstream_proto.DecodeRequest.TextContent"
  }
  field {
    name: "token_content" number: 6 type: TYPE_MESSAGE oneof_index: 0
    type_name: ".jetstream_proto.DecodeRequest.TokenContent"
  }
  field {
    name: "metadata" number: 7 type: TYPE_MESSAGE oneof_index: 1
    type_name: ".jetstream_proto.DecodeRequest.Metadata"
  }
  field { name: "num_samples" number: 8 type: TYPE_INT32 }
  field { name: "lora_adapter_id" number: 9 type: TYPE_STRING }
  field { name: "has_bos" number: 10 type: TYPE_BOOL }
}
message_type {
  name: "DecodeResponse"
  nested_type { name: "InitialContent" }
  nested_type {
    name: "StreamContent"
    nested_type {
      name: "Sample"
      field { name: "text" number: 1 type: TYPE_STRING }
      field { name: "token_ids" number: 2 type: TYPE_INT32 label: LABEL_REPEATED }
    }
    field {
      name: "samples" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED
      type_name: ".jetstream_proto.DecodeResponse.StreamContent.Sample"
    }
  }
  oneof_decl { name: "content" }
  field {
    name: "initial_content" number: 2 type: TYPE_MESSAGE oneof_index: 0
    type_name: ".jetstream_proto.DecodeResponse.InitialContent"
  }
  field {
    name: "stream_content" number: 3 type: TYPE_MESSAGE oneof_index: 0
    type_name: ".jetstream_proto.DecodeResponse.StreamContent"
  }
}
message_type { name: "HealthCheckRequest" }
message_type { name: "HealthCheckResponse"  field { name: "is_live" number: 1 type: TYPE_BOOL } }
"""

_POOL = DescriptorPool()  # of its own: a process may know the same names from elsewhere
_POOL.Add(Parse(_FILE, FileDescriptorProto()))


def _made(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_DecodeRequest, _DecodeResponse = _made("DecodeRequest"), _made("DecodeResponse")
_HealthCheckResponse = _made("HealthCheckResponse")
HEALTH_REQUEST = b""  # a message without fields


def request(prompt: Sequence[int] | str, max_tokens: int) -> bytes:
    """A DecodeRequest for one answer, as JetStream's clients write it: no field that is a default.

    ValueError for what is no int32 and no text.
    """
    message = _DecodeRequest(max_tokens=max_tokens)
    if isinstance(prompt, str):
        message.text_content.text = prompt
    else:
        message.token_content.token_ids.extend(prompt)
    return bytes(message.SerializeToString())


def samples(data: bytes) -> list[tuple[tuple[int, ...], str]]:
    """The token ids and the text of each sample of a DecodeResponse.

    None in an answer's initial content. ValueError where the bytes are no such message.
    """
    content = _parsed(_DecodeResponse, data).stream_content
    return [(tuple(sample.token_ids), sample.text) for sample in content.samples]


def is_live(data: bytes) -> bool:
    """What a HealthCheckResponse says. ValueError where the bytes are none."""
    return bool(_parsed(_HealthCheckResponse, data).is_live)


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a message that is no {kind.DESCRIPTOR.name}: {error}") from None
