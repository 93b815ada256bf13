"""What is run: a model's shape and one cell of a document, as frozen values.

Nothing here knows pytest, an engine or a clock. Lengths and batches are counts of tokens and of
sequences; a "head" of a grouped-query model is a query head, `kv_heads` counts the key/value ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# What a command line says of a server's load, see `serving.choices`; no document names these.
LOAD_OPTIONS = ("arrivals", "clients", "dataset_file", "requests_folder", "tokenizer")


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's frequency scaling: factor, the two band limits, the context it was trained at."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class Model:
    """The shape of a Llama-family decoder; `parameters` counts tied embeddings once."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    activation: str = "silu"  # or "gelu_tanh" (Gemma)
    tied_embeddings: bool = False
    scaled_embeddings: bool = False  # Gemma multiplies embeddings by sqrt(hidden_size)
    norm_adds_one: bool = False  # Gemma's RMSNorm scales by (1 + weight)
    checkpoint: str | None = None  # a Hugging Face directory; None means seeded random weights

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer: attention, gated MLP, two norms."""
        query = self.hidden_size * self.heads * self.head_dim
        key_value = 2 * self.hidden_size * self.kv_heads * self.head_dim
        mlp = 3 * self.hidden_size * self.intermediate_size
        return 2 * query + key_value + mlp + 2 * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights: layers, final norm, embedding and output projection."""
        tables = 1 if self.tied_embeddings else 2
        embedding = tables * self.vocab_size * self.hidden_size
        return self.layers * self.layer_parameters + self.hidden_size + embedding

    @property
    def kv_values_per_token(self) -> int:
        """Cached numbers that one token of one sequence adds, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Workload:
    """One cell of a document: what is asked, of which model, in which sizes.

    kind is what the measuring code does with it:
      "single_user"  batch 1: prefill, then decode; latency and single-user throughput
      "multi_user"   the maxima over batch 2, 4, 8 ... (`batch` is the largest to try; 0: no bound)
      "generate"     prefill of `batch` prompts, then decode of all of them
      "shared"       one prefix of `shared_tokens` common to `batch` completions, then decode
      "attention"    the attention operation alone (Hydragen's microbenchmark)
      "needles"      questions over one long shared text
      "serving"      requests against a server
      "kernels"      the compiled kernels for the model's shapes: never run, at full size only
    """

    id: str
    document: str  # "jetstream", "hydragen", "torchao", "llm"
    place: str  # where in the document: "Llama 3 - 8B, row 1"
    kind: str
    mode: str  # the technique or baseline the document names: "hydragen_noshared", "kv_quant" ...
    model: Model
    device: str  # the document's own hardware: "TPU v5e-8"
    dtype: str = "bfloat16"
    batch: int = 1
    input_tokens: int = 0  # prompt tokens of each sequence, not counting a shared prefix
    shared_tokens: int = 0  # prefix tokens common to all sequences of the batch
    output_tokens: int = 0  # tokens to generate for each sequence, the first included
    cache_tokens: int = 0  # length of the cache of one sequence; shorter than needed means rolling
    iterations: int = 0  # the document's own counts, 0 where it names none
    warmup_iterations: int = 0
    options: tuple[tuple[str, str], ...] = ()  # flags of the document: (("tensor_parallel", "8"),)
    scale: str = "full"  # or "smoke"
    stands_for: tuple[str, ...] = ()  # a smoke workload names the full ones it was shrunk from

    @property
    def sequence_tokens(self) -> int:
        """Tokens that one sequence holds at the end."""
        return self.shared_tokens + self.input_tokens + self.output_tokens

    @property
    def is_rolling(self) -> bool:
        """The cache is shorter than the sequence: rolling-window attention."""
        return 0 < self.cache_tokens < self.sequence_tokens

    @property
    def is_compiled_only(self) -> bool:
        """Nothing of it is run, so it has no smoke size."""
        return self.kind == "kernels"

    def option(self, name: str) -> str | None:
        """The document's flag of that name, or None."""
        return dict(self.options).get(name)

    def sized(self, **changes: object) -> Workload:
        """A copy with some fields changed; the id and what it stands for are the caller's.

        What a run said of a server's load stays whatever options are given: the id names it.
        """
        kept = {name: value for name, value in self.options if name in LOAD_OPTIONS}
        if kept and "options" in changes:
            given = dict(changes["options"])  # type: ignore[call-overload]
            changes["options"] = tuple(sorted({**given, **kept}.items()))
        return replace(self, **changes)  # type: ignore[arg-type]
