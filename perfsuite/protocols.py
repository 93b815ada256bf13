"""What a subject offers, on a postcard. Everything is duck-typed: nobody needs to import this.

A project hands over offers by implementing the hook `pytest_perf_engines(config)` in its
conftest.py (`@pytest.hookimpl(optionalhook=True)`, so that it survives without this plugin), or by
an entry point of the group `perfsuite.engines` that names a function returning a list of offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from perfsuite.workloads import Workload

TokenRows = Sequence[Sequence[int]]  # [batch, time]; the rows are array.array("i")


class Step(Protocol):
    """The state after a prefill or one decode step; the work may still be under way."""

    tokens: Any  # [batch] the newest token of every sequence, an array of the framework
    # logits() -> [batch, vocab], optional: asked for once after the timed part, checked for NaN


class Engine(Protocol):
    """A decoder-only language model over token ids. Knows nothing about text, time or tests."""

    config: dict[str, Any]  # effective: what it really runs with, in built-in types

    def prefill(self, token_ids: TokenRows) -> Step:
        """Forget all sequences, run these prompts, produce the first token of each."""

    def decode(self, step: Step) -> Step:
        """One more token for every sequence; must not wait for the device."""

    def wait(self, step: Step) -> None:
        """Block until the device has finished this step."""

    def close(self) -> None:
        """Give the memory back."""


class SharedPrefixEngine(Engine, Protocol):
    """An engine that knows a prefix common to all sequences of a batch."""

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Step:
        """Forget all sequences, run one prefix [time] once, produce `batch` first tokens."""


class AttentionEngine(Protocol):
    """The attention operation alone, on queries, keys and values that the engine holds.

    For Hydragen's microbenchmark: one query for each of `batch` sequences, `shared_tokens` keys
    that all see and `output_tokens` that each has of its own. Mode "base" attends to a copy of
    both for each sequence, "hydragen" to the shared ones once.
    """

    config: dict[str, Any]  # as an engine's

    def attention(self) -> Any:
        """One call: the outputs [batch, heads, 1, head_dim], which may still be under way."""

    def wait(self, result: Any) -> None:
        """Block until the device has finished this result."""

    def flush(self) -> None:
        """Overwrite the last-level cache and wait; called before each call, outside the clock."""

    def close(self) -> None:
        """Give the memory back."""


class NeedlesEngine(SharedPrefixEngine, Protocol):
    """An engine that answers questions of different lengths behind one prefix."""

    def answer(self, questions: TokenRows, new_tokens: int) -> Any:
        """Greedy tokens [questions, new_tokens] behind each question, which continues the prefix.

        Called after `prefill_shared(prefix, batch=len(questions))`; an array of integers, or lists.
        """


class SlotEngine(Engine, Protocol):
    """An engine whose sequences come and go, each in a slot of its own.

    A prefix (one prompt that was run) and a state (all slots) are the engine's own; a state has
    `tokens`, [slots], and may have `logits` as a step has. `wait` takes both. A state that was
    given away is gone, so that its cache need not be copied.
    """

    def emptied(self) -> Any:
        """Forget all sequences: a state of empty slots, in the memory of the one before."""

    def prefill_one(self, token_ids: Sequence[int]) -> Any:
        """Run one prompt [time], of which nothing is padding: a prefix."""

    def insert(self, prefix: Any, state: Any, slot: int) -> Any:
        """The state with this prefix in a slot, whatever was there."""

    def generate(self, state: Any) -> Any:
        """One more token for every slot; must not wait for the device."""


class Program(Protocol):
    """A full-size program for the static tier, of an offer whose framework is torch.

    Optional, both called once after `make`:

        held() -> Mapping[str, Tensor]
            What the program holds, by names whose first part is the kind: "weights.layers.0.qkv",
            "cache.layers.0.keys", "mask", "rope.cos", "inputs.tokens". What is alive at the peak
            and has no name is "activations". A subclass of Tensor stands for its inner tensors.
        lengths() -> Sequence[Callable[[], object]]
            The same function at a range of lengths, prompts or places in the cache: each is traced
            by torch.compile(backend="aot_eager") for graph breaks and recompiles. Costs a second
            for thirty layers and length, so give it as few layers as show all there is. A function
            that writes to what it is given can not be traced on "cuda" by a torch without CUDA:
            the tensors of these calls may be on "cpu", whatever the target.
    """

    name: str  # "prefill", "decode"

    def make(self) -> Callable[[], object]:
        """Build weights and cache, return the call; runs without data under fake tensors."""


class XlaProgram(Protocol):
    """A full-size program for the static tier, of an offer whose framework is "jax".

    `programs(workload, target)` of such an offer gets a target with `name` ("v5e-8") and `devices`,
    a list of JAX devices to make a mesh of; perfsuite runs `jitted.lower(*arguments).compile()`.
    """

    name: str  # "prefill", "decode"
    jitted: Any  # of jax.jit, with what is donated and where the outputs lie
    arguments: tuple[Any, ...]  # pytrees of jax.ShapeDtypeStruct with shardings on those devices
    weights_bytes: float  # of one chip, as they are held: quantised ones with their scales
    cache_bytes: float  # of one chip, the live cache: what a step can not avoid to hold and read


class TritonProgram(Protocol):
    """A kernel for the static tier, of an offer whose framework is "triton"; nothing is run.

    `programs(workload, "cuda")` of such an offer gives the kernels that the workload's shapes take;
    perfsuite compiles each for sm_80, sm_90 and sm_100.
    """

    name: str  # "decode_attention"
    kernel: Any  # of triton.jit, in a file
    signature: Mapping[str, str]  # of every argument: "*bf16", "i32", "i32:16", "constexpr"
    constants: Mapping[str, Any]  # of every constexpr
    num_warps: int
    num_stages: int


class Offer(Protocol):
    """What an engine's author hands over; costs nothing until it is opened.

    Optional: `default` (False: runs only when named by --engine), `programs(workload, target)`
    for the static tier (`has_programs` False: none without data), `verify(engine, workload)` ->
    reason or None, the check of its outputs.
    `compare(engine, workload)` -> what the workload's technique costs in accuracy: a mapping with
    "kl_divergence" (nats a token: the mean over all positions of a fixed token stream of the sum of
    p * ln(p / q), p of the unquantised model, q of the engine) and "max_logit_error" (the largest
    absolute difference of a logit), or an empty one where there is nothing to compare with. Asked
    once a test, in its first process, after all that is measured.
    `negative_log_likelihood(engine, token_ids)` -> of sequences [B, T], nats a token: the mean over
    all tokens but the first of each sequence, each given those before it in the engine's own cache.
    Asked likewise, with --perf-model and --perf-text, on workloads of one batch.
    `distributed` (True: under torchrun every rank opens the engine for its own part; RANK,
    LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set, the device is the rank's own).
    One that has no `open` is compiled and never run.
    """

    name: str
    framework: str  # "torch", "jax", "triton" or ""

    def refuses(self, workload: Workload, device: str) -> str | None:
        """Why it cannot honestly run this, or None; shown as a skip."""

    def open(self, workload: Workload, device: str) -> Engine:
        """The engine for this workload on `cpu`, `cuda:0`, `tpu`."""
