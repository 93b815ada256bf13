"""HTTP/2 written by hand: a client that does what no gRPC library would do."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
DECODE = "/jetstream_proto.Orchestrator/Decode"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; flag 1 ends the stream, flag 4 the headers."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def opening() -> bytes:
    """How a connection begins."""
    return PREFACE + frame(SETTINGS, 0, 0)


def asked(stream: int, path: str = DECODE, **more: str) -> bytes:
    """The headers of a gRPC request, without compression."""
    named = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
             "te": "trailers", "content-type": "application/grpc", **more}  # fmt: skip
    block = b"".join(b"\x00" + literal(name) + literal(value) for name, value in named.items())
    return frame(HEADERS, 4, stream, block)


def literal(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def message(data: bytes, length: int | None = None, compressed: int = 0) -> bytes:
    """A gRPC message, which may claim another length than it has."""
    return bytes([compressed]) + (len(data) if length is None else length).to_bytes(4, "big") + data


def decode(data: bytes, stream: int = 1) -> bytes:
    """All of one request to Decode."""
    return asked(stream) + frame(DATA, 1, stream, message(data))
