"""The command line. Names and effects are those of jetstream-pytorch's run_server.py where it has
the option; one that would have no effect on the engine that is asked for is refused."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

ENGINES = ("jetstream", "torch", "hydragen")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Options:
    """What was asked for, checked and complete; lengths in tokens."""

    engine: str
    model: str | None
    param_size: str | None
    checkpoint_path: str | None
    random_weights: bool
    tokenizer_path: str | None
    shared_prefix: str | None
    batch_size: int
    max_cache_length: int
    max_input_length: int
    max_output_length: int
    dtype: str
    quantize_weights: bool
    quantize_kv_cache: bool
    shard_on_batch: bool
    platform: str
    devices: int | None
    seed: int
    host: str
    port: int
    http_port: int
    queue_length: int
    max_body_bytes: int
    stall_seconds: float
    grace_seconds: float


def read(arguments: Sequence[str]) -> Options:
    """ValueError for what can not be used; argparse ends the process for what is no option."""
    given = vars(_parser().parse_args(arguments))
    _check_weights(given)
    _check_engine(given)
    cache, asked = given["max_cache_length"], given["max_input_length"]
    made = given["max_output_length"]
    given["max_input_length"] = asked or (cache - made if made else cache // 2)
    given["max_output_length"] = made or cache - given["max_input_length"]
    if given["quantize_kv_cache"] is None:
        given["quantize_kv_cache"] = given["quantize_weights"]
    platform, devices = _platform(given["platform"])
    options = Options(
        **given | {"platform": platform, "devices": devices, "seed": given["seed"] or 0}
    )
    _check_sizes(options)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engines.serve", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--engine", choices=ENGINES, required=True)
    add("--model", help="a documents' model by name: llama-2, llama-3, gemma")
    add("--param_size", help="and by size: tiny, 2b, 7b, 8b, 13b")
    add("--checkpoint_path", help="a folder with config.json and *.safetensors")
    add("--random_weights", type=_flag, help="the folder's shape, weights from --seed")
    add("--tokenizer_path", help="tokenizer.json or its folder; default: the checkpoint's")
    add("--shared_prefix", help="hydragen: a file of text that prompts begin with, kept once")
    add("--batch_size", type=int, default=32, help="slots: sequences that run at once")
    add("--max_cache_length", type=int, default=2048, help="cached tokens of a sequence")
    add("--max_input_length", type=int, help="of a prompt; default: half of the cache")
    add("--max_output_length", type=int, help="of an answer; default: the other half")
    add("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    add("--quantize_weights", type=_flag, default=False, help="int8 weights (jetstream)")
    add("--quantize_kv_cache", type=_flag, help="int8 cache; default: as the weights")
    add("--shard_on_batch", type=_flag, default=False, help="slots over devices (jetstream)")
    add("--platform", default="cpu", help="cpu, gpu or tpu, with =N for the first N devices")
    add("--seed", type=int, help="of random weights; default: 0")
    add("--host", default="127.0.0.1", help="the address to listen on")
    add("--port", type=int, default=9000, help="of gRPC; 0: any free one")
    add("--http_port", type=int, default=8000, help="of HTTP; 0: any free one")
    add("--queue_length", type=int, default=1024, help="requests that may wait for a slot")
    add("--max_body_bytes", type=int, default=MEBIBYTE, help="of one request")
    add("--stall_seconds", type=float, default=60.0, help="a client that stalls so long is cut")
    add("--grace_seconds", type=float, default=30.0, help="for answers under way at the end")
    return parser


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected true or false")
    return known[text.lower()]


def _platform(text: str) -> tuple[str, int | None]:
    name, _, count = text.partition("=")
    if name not in ("cpu", "gpu", "tpu") or (count and not (count.isdecimal() and int(count))):
        raise ValueError(f"got --platform {text!r}, expected cpu, gpu or tpu, or tpu=8")
    return name, int(count) if count else None


def _check_weights(given: dict[str, object]) -> None:
    folder, name, size = given["checkpoint_path"], given["model"], given["param_size"]
    if (name is None) != (size is None):
        raise ValueError("--model and --param_size go together: llama-2 and 7b")
    if folder is None and name is None:
        raise ValueError("there is nothing to serve: give --checkpoint_path, or --model and "
                         "--param_size for random weights")  # fmt: skip
    if folder is None and given["random_weights"] is False:
        raise ValueError("without --checkpoint_path weights are random: give a folder")
    given["random_weights"] = folder is None or bool(given["random_weights"])
    if given["seed"] is not None and not given["random_weights"]:
        raise ValueError("--seed has no effect on a checkpoint's weights: leave it out, or "
                         "give --random_weights=true")  # fmt: skip


def _check_engine(given: dict[str, object]) -> None:
    engine = given["engine"]
    if engine == "jetstream":
        only_torch = {"shared_prefix": given["shared_prefix"]}
        _refuse(engine, [name for name, value in only_torch.items() if value])
        return
    ours = ("quantize_weights", "quantize_kv_cache", "shard_on_batch")
    _refuse(engine, [name for name in ours if given[name]])
    if str(given["platform"]) not in ("cpu", "cpu=1"):
        raise ValueError(f"--engine={engine} serves on one CPU, got --platform="
                         f"{given['platform']}: take --engine=jetstream")  # fmt: skip
    if engine == "torch":
        _refuse(engine, ["shared_prefix"] if given["shared_prefix"] else [])
    elif not given["shared_prefix"]:
        raise ValueError("hydragen reads a prefix once for all sequences: give --shared_prefix, "
                         "or take --engine=torch")  # fmt: skip


def _refuse(engine: object, names: list[str]) -> None:
    if names:
        shown = ", ".join(f"--{name}" for name in names)
        raise ValueError(f"{shown} would have no effect on --engine={engine}: leave it out")


def _check_sizes(options: Options) -> None:
    least = {"batch_size": 1, "max_cache_length": 2, "max_input_length": 1, "max_output_length": 1,
             "queue_length": 0, "max_body_bytes": 1, "port": 0, "http_port": 0}  # fmt: skip
    for name, low in least.items():
        if getattr(options, name) < low:
            raise ValueError(f"got --{name}={getattr(options, name)}, expected at least {low}")
    longest = options.max_input_length + options.max_output_length
    if options.engine != "jetstream" and longest > options.max_cache_length:
        raise ValueError(
            f"--engine={options.engine} does not roll: a prompt of {options.max_input_length} and "
            f"an answer of {options.max_output_length} tokens need --max_cache_length={longest}, "
            f"got {options.max_cache_length}"
        )
    if not (options.stall_seconds > 0 and options.grace_seconds >= 0):
        raise ValueError("expected --stall_seconds above 0 and --grace_seconds of at least 0")
    try:
        ip_address(options.host)
    except ValueError:
        raise ValueError(f"got --host={options.host!r}, expected an address: 127.0.0.1") from None
