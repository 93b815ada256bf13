"""The life of a server: start, say where, serve, and stop in good order.

The first SIGTERM or SIGINT takes no more requests and waits for the answers under way, as long as
the grace lasts; the second one ends them. An engine that fails ends the server with status 1.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import time
from typing import Any

from engines.serve import grpc_server, http_server
from engines.serve.front import Front
from engines.serve.limits import Limits
from engines.serve.models import Shape
from engines.serve.options import Options
from engines.serve.slots import SlotEngine
from engines.serve.text import Text, stop_tokens

log = logging.getLogger("engines.serve")


async def serve(options: Options, shape: Shape, text: Text, engine: SlotEngine) -> int:
    """Until a signal or a failure; the exit status. OSError where a port can not be had."""
    _raise_open_files()
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again
    front = Front(engine, options.queue_length)
    try:
        http, grpc = await _started(options, shape, text, engine, front)
    except OSError:
        await front.drained(0)
        raise
    await _until_the_end(front)
    log.info("stopping: %s", front.failure or "no more requests, answers under way go on")
    await front.drained(options.grace_seconds)
    await asyncio.gather(grpc.stop(http_server.CLOSING_S), http.cleanup())
    if front.failure:
        log.error("%s", front.failure)
    return 1 if front.failure else 0


async def _started(
    options: Options, shape: Shape, text: Text, engine: SlotEngine, front: Front
) -> tuple[Any, Any]:
    limits = Limits(
        input_tokens=options.max_input_length,
        output_tokens=options.max_output_length,
        vocabulary=shape.vocab_size,
        body_bytes=options.max_body_bytes,
        stall_s=options.stall_seconds,
    )
    stops = stop_tokens(options.checkpoint_path)
    about = described(options, text, engine)
    openai = http_server.OpenAI(front, text, limits, stops, shape.name, about)
    orchestrator = grpc_server.Orchestrator(front, text, limits, stops)
    http, http_port = await http_server.started(openai, options.host, options.http_port)
    try:
        grpc, port = await grpc_server.started(orchestrator, options.host, options.port)
    except OSError:
        await http.cleanup()
        raise
    host = f"[{options.host}]" if ":" in options.host else options.host
    log.info("ready: http://%s:%s gRPC %s:%s model %s", host, http_port, host, port, shape.name)
    return http, grpc


def described(options: Options, text: Text, engine: SlotEngine) -> dict[str, Any]:
    """What /v1/models says beside the model's name."""
    return {
        "created": int(time.time()),
        "max_model_len": options.max_input_length + options.max_output_length,
        "max_input_length": options.max_input_length,
        "max_output_length": options.max_output_length,
        "engine": options.engine,
        "text": text.name,
        "chat": text.chat,
        "config": engine.config,
    }


async def _until_the_end(front: Front) -> None:
    """A signal, or the end of the engine's thread; later signals end all answers."""
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            front.abort("the server was stopped before this answer was complete")
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    waits = [asyncio.create_task(event.wait()) for event in (asked, front.ended)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _raise_open_files() -> None:
    """A connection is an open file; the system's default of 1024 would be the first limit met."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
