"""Bytes and operations of a workload, and the time below which no machine can run it. Pure.

Counted is what cannot be avoided: every weight read once a step, every live key and value read
once (of a prefix that the sequences share, one for all, but where the mode gives each its copy),
two operations for a multiply-add. Attention and the weight products are separate parts: the
floor is the sum over the parts of max(bytes / bandwidth, operations / peak), as in the roofline
model (Williams, Waterman, Patterson 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

from perfsuite.workloads import Model, Workload

BYTES_PER_VALUE = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}
# The documents' flags. JetStream's int8 takes in every weight; its scales are not counted.
_INT8_WEIGHTS, _INT8_CACHE = "quantize_weights", "quantize_kv_cache"
# torchao's take in the matrices, that to the vocabulary too unless it is the embedding; scales are
# counted.
_MATRICES, _CACHE_WITH_SCALES = "quantization", "kv_cache_quantization"
_INT4_GROUPS = (128, 64, 32)  # weights that share a scale and a zero point: as many as divide all
# Hydragen's modes by their effect, named one way end to end and another for the needles.
_COPYING = ("hydragen_noshared", "disable_hydragen", "base")
_WITHOUT_ATTENTION = ("noattention", "no_attention")


@dataclass(frozen=True)
class Ceilings:
    """What this machine showed: read bandwidth in bytes/s, matrix products in operations/s."""

    bandwidth: float
    peak: float


@dataclass(frozen=True)
class Part:
    """A piece of work that is bound by one of the two ceilings."""

    bytes: float
    operations: float

    def floor_s(self, ceilings: Ceilings) -> float:
        """Seconds that this part takes at least."""
        return max(self.bytes / ceilings.bandwidth, self.operations / ceilings.peak)


def prefill_parts(workload: Workload, batch: int) -> list[Part]:
    """The weight products and the causal attention of the prompts of `batch` sequences.

    A shared prefix is run once, whatever the batch, and copied to every sequence where the mode
    says so (`hydragen_noshared`, `disable_hydragen`).
    """
    shared, own = workload.shared_tokens, workload.input_tokens
    sequences = 1 if shared else batch
    tokens = shared + own
    parts = [_weights(workload, sequences * tokens, logits_of=batch)]
    if workload.mode not in _WITHOUT_ATTENTION:
        pairs = sequences * _attended(workload, 1, tokens)
        parts.append(_attention(workload, pairs, sequences * _held(workload, tokens)))
    if _copies_prefix(workload):
        parts.append(Part(batch * shared * _cached_bytes(workload), 0.0))
    return parts


def decode_parts(workload: Workload, batch: int) -> list[Part]:
    """All decode steps after the first token: weights once a step, the live cache once a step.

    A shared prefix and the sequences' own tokens are two parts: the first is bound by products
    where many sequences share it, the second by memory.
    """
    start = workload.shared_tokens + workload.input_tokens
    steps = max(workload.output_tokens - 1, 0)
    once = _weights(workload, batch, logits_of=batch)
    parts = [Part(steps * once.bytes, steps * once.operations)]
    if workload.mode in _WITHOUT_ATTENTION:
        return parts
    # step i (from 1) attends to the start tokens and the i generated before it
    live = _attended(workload, start + 1, start + steps)
    if _copies_prefix(workload) or not workload.shared_tokens:
        parts.append(_attention(workload, batch * live, batch * live))
        return parts
    prefix = steps * workload.shared_tokens
    own = batch * (live - prefix)
    parts += [_attention(workload, batch * prefix, prefix), _attention(workload, own, own)]
    return parts


def attention_parts(workload: Workload, batch: int) -> list[Part]:
    """One call of the attention operation: one query a sequence over the prefix, over its suffix.

    The prefix is read once for all, but where the mode copies it to every sequence (`base`).
    Queries and results are not counted: they are small beside the keys and values.
    """
    prefix, suffix = batch * workload.shared_tokens, batch * workload.output_tokens
    read = prefix if _copies_prefix(workload) else workload.shared_tokens
    return [_one_layer(workload, prefix, read), _one_layer(workload, suffix, suffix)]


def floor_s(parts: list[Part], ceilings: Ceilings) -> float:
    """Seconds that these parts take at least, one after the other."""
    return sum(part.floor_s(ceilings) for part in parts)


def working_set_bytes(workload: Workload, batch: int) -> float:
    """Weights and full cache: what has to stay near for caches to hide the memory.

    Of the attention operation alone its keys and values, though each call follows a flush.
    """
    if workload.kind == "attention":
        return sum(part.bytes for part in attention_parts(workload, batch))
    tokens = batch * _held(workload, workload.sequence_tokens)
    if not _copies_prefix(workload):
        tokens -= (batch - 1) * workload.shared_tokens
    if workload.mode in _WITHOUT_ATTENTION:
        tokens = 0
    model, cache = workload.model, tokens * _cached_bytes(workload)
    rest = model.parameters - model.layers * model.layer_parameters - _head(model)
    return _read_weights(workload) + rest * _plain_bytes(workload) + cache


def _weights(workload: Workload, tokens: int, logits_of: int) -> Part:
    model = workload.model
    layers = model.layers * model.layer_parameters
    operations = 2.0 * (tokens * layers + logits_of * _head(model))
    return Part(_read_weights(workload), operations)


def _read_weights(workload: Workload) -> float:
    """Bytes of the weights that a step reads whole: the layers and the matrix to the vocabulary."""
    model, plain, matrix = workload.model, _plain_bytes(workload), _matrix_bytes(workload)
    norms = model.layers * 2 * model.hidden_size
    layers = model.layers * model.layer_parameters - norms
    head = _head(model) * (plain if model.tied_embeddings else matrix)
    return layers * matrix + head + norms * plain


def _head(model: Model) -> int:
    """Weights of the matrix to the vocabulary."""
    return model.hidden_size * model.vocab_size


def _attention(workload: Workload, pairs: float, cached_tokens: float) -> Part:
    model = workload.model
    operations = 4.0 * model.layers * model.heads * model.head_dim * pairs
    return Part(cached_tokens * _cached_bytes(workload), operations)


def _one_layer(workload: Workload, pairs: float, read_tokens: float) -> Part:
    whole, layers = _attention(workload, pairs, read_tokens), workload.model.layers
    return Part(whole.bytes / layers, whole.operations / layers)


def _cached_bytes(workload: Workload) -> float:
    """Bytes of one token of one sequence in the cache, all layers.

    torchao's int8 has a scale of the model's type for each head: head_dim + 2 bytes in bfloat16.
    """
    size, model = BYTES_PER_VALUE[workload.dtype], workload.model
    if workload.option(_CACHE_WITH_SCALES) == "true":
        size = BYTES_PER_VALUE["int8"] + size / model.head_dim
    elif workload.option(_INT8_CACHE) == "true":
        size = BYTES_PER_VALUE["int8"]
    return model.kv_values_per_token * size


def _matrix_bytes(workload: Workload) -> float:
    """Bytes of one weight of a matrix, with its part of the scales.

    torchao's int4 has a scale and a zero point for each group, 0.5 + 4 / 128 in bfloat16; its int8
    a scale for each row, whose length is taken as the hidden size.
    """
    size, model = BYTES_PER_VALUE[workload.dtype], workload.model
    match workload.option(_MATRICES):
        case "int4wo":
            return BYTES_PER_VALUE["int4"] + 2 * size / _int4_group(model)
        case "int8wo":
            return BYTES_PER_VALUE["int8"] + size / model.hidden_size
        case _:
            return _plain_bytes(workload)


def _int4_group(model: Model) -> int:
    widths = (model.hidden_size, model.heads * model.head_dim, model.intermediate_size)
    fitting = (size for size in _INT4_GROUPS if not any(width % size for width in widths))
    return next(fitting, _INT4_GROUPS[-1])


def _plain_bytes(workload: Workload) -> float:
    """Bytes of one weight of a norm or of the embedding."""
    int8 = workload.option(_INT8_WEIGHTS) == "true"
    return BYTES_PER_VALUE["int8" if int8 else workload.dtype]


def _copies_prefix(workload: Workload) -> bool:
    return workload.mode in _COPYING


def _held(workload: Workload, tokens: int) -> int:
    """Tokens of one sequence in its cache, when it has seen that many."""
    return min(tokens, workload.cache_tokens) if workload.is_rolling else tokens


def _attended(workload: Workload, first: int, last: int) -> float:
    """Keys that the tokens first..last of one sequence attend to, each itself included."""
    every = (last * (last + 1) - first * (first - 1)) / 2
    if not workload.is_rolling:
        return every
    beyond, before = (max(n - workload.cache_tokens, 0) for n in (last, first - 1))
    return every - (beyond * (beyond + 1) - before * (before + 1)) / 2
