"""The static tier of torch programs: hand-computed figures of programs that hold no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.errors import EngineUnavailable, Void  # noqa: E402
from perfsuite.runtimes import resident  # noqa: E402
from perfsuite.static import compiled, facts_of  # noqa: E402

PEAK = "static_peak_memory/live_tensors"
LOADED = "static_loaded_memory/weights_and_cache"
OPERATIONS = "static_operations/matrix_products"
TRAFFIC = "static_traffic/operands_and_results"
OPERATORS = "static_operators/dispatched"
AT_PEAK = "static_at_peak/"


@dataclass
class Program:
    make: Callable[[], Callable[[], object]]
    name: str = "decode"


class Scaled(torch.Tensor):
    """Weights [N, K] of 8 bits with a scale [N, 1] in bfloat16, which torch sees as bfloat16."""

    @staticmethod
    def __new__(cls, quantised: Any, scale: Any) -> Any:
        kind = {"dtype": torch.bfloat16, "device": quantised.device}
        return torch.Tensor._make_wrapper_subclass(cls, quantised.shape, **kind)

    def __init__(self, quantised: Any, scale: Any) -> None:
        self.quantised, self.scale = quantised, scale

    def __tensor_flatten__(self) -> Any:
        return ["quantised", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, *_: Any) -> Any:
        return cls(inner["quantised"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
        assert func is torch.ops.aten.linear.default
        x, weight = args
        return x @ (weight.quantised.to(torch.bfloat16) * weight.scale).t()


class Attention:
    """A decode step of two layers; what is planted is one of the faults that this tier is for."""

    name = "decode"
    cached, queries, heads, size = 4096, 1024, 8, 64

    def __init__(self, planted: str = "") -> None:
        self.planted = planted

    def make(self) -> Callable[[], object]:
        def empty(*shape: int, dtype: str) -> Any:
            return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")

        narrow, wide = {"dtype": "int8"}, {"dtype": "bfloat16"}
        width = self.heads * self.size
        self.weights = [empty(width, 8 * width, **narrow) for _ in range(2)]
        if self.planted == "weight widened":
            self.weights[1] = empty(width, 8 * width, **wide)
        self.keys = [empty(1, self.heads, self.cached, self.size, **narrow) for _ in range(2)]
        rows = self.cached if self.planted == "dense mask" else 1
        self.mask = empty(1, 1, rows, self.cached, dtype="bool")
        self.q = empty(1, self.heads, 1, self.size, **wide)
        return self.run

    def held(self) -> dict[str, Any]:
        held = {f"weights.layers.{n}.down": tensor for n, tensor in enumerate(self.weights)}
        held |= {f"cache.layers.{n}.keys": tensor for n, tensor in enumerate(self.keys)}
        return {**held, "mask": self.mask, "inputs.q": self.q}

    def run(self) -> object:
        return [self.attend(keys) for keys in self.keys]

    def attend(self, keys: Any) -> Any:
        whole = self.planted == "cache dequantised whole"
        tiles = [keys] if whole else keys.split(256, 2)
        scores = [self.q @ self.dequantised(tile).transpose(2, 3) for tile in tiles]
        return torch.cat(scores, -1).masked_fill(self.mask.narrow(2, 0, 1), 0)

    def dequantised(self, keys: Any) -> Any:
        return keys.to(torch.bfloat16)


def product(target: str, rows: int = 2) -> Program:
    """Multiply x [rows, 8] by w [8, 4] in float32."""

    def make() -> Callable[[], object]:
        w, x = torch.empty(8, 4, device=target), torch.empty(rows, 8, device=target)
        return lambda: x @ w

    return Program(make)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_product_is_counted_by_hand(target: str) -> None:
    """Loaded are x and w, the peak adds the result, the traffic is all three once."""
    found = facts_of(product(target), "torch", target)
    assert found[LOADED] == 4 * (8 * 4 + 2 * 8)
    assert found[PEAK] == found[LOADED] + 4 * 2 * 4
    assert found[OPERATIONS] == 2 * 2 * 8 * 4
    assert found[TRAFFIC] == 4 * (8 * 4 + 2 * 8 + 2 * 4)
    assert found[OPERATORS] == 1


def test_a_composite_operator_is_counted_by_its_parts() -> None:
    """A linear layer is a transposed view, which moves nothing, and a product."""

    def make() -> Callable[[], object]:
        x, w = torch.empty(2, 8), torch.empty(4, 8)
        return lambda: torch.nn.functional.linear(x, w)

    found = facts_of(Program(make), "torch", "cpu")
    assert found[OPERATIONS] == 2 * 2 * 8 * 4
    assert found[TRAFFIC] == 4 * (2 * 8 + 4 * 8 + 2 * 4)


def test_what_is_freed_leaves_the_peak() -> None:
    """Two temporaries one after the other peak at one, held together at both."""

    def one_by_one() -> None:
        for _ in range(2):
            torch.empty(1000)

    def together() -> object:
        return [torch.empty(1000) for _ in range(2)]

    peaks = [
        facts_of(Program(lambda call=call: call), "torch", "cpu")[PEAK]
        for call in (one_by_one, together)
    ]
    assert peaks == [4000, 8000]


def test_a_view_holds_nothing_and_moves_nothing() -> None:
    """Reshapes and slices of a tensor share its storage."""

    def make() -> Callable[[], object]:
        x = torch.empty(10, 10)
        return lambda: x.view(100).narrow(0, 5, 50)

    found = facts_of(Program(make), "torch", "cpu")
    assert (found[PEAK], found[TRAFFIC], found[OPERATORS]) == (400, 0, 0)


def test_attention_by_name_is_counted_with_all_its_pairs() -> None:
    """Two products of 3 queries with 5 keys for each of 4 heads of size 8."""

    def make() -> Callable[[], object]:
        q = torch.empty(1, 4, 3, 8)
        k, v = torch.empty(1, 4, 5, 8), torch.empty(1, 4, 5, 8)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return lambda: flash(q, k, v)

    assert facts_of(Program(make), "torch", "cpu")[OPERATIONS] == 2 * 2 * 4 * 3 * 5 * 8


def test_math_attention_is_refused() -> None:
    """Its score matrix is memory that no device would spend."""

    def make() -> Callable[[], object]:
        q = torch.empty(1, 4, 3, 8, device="cuda")
        return lambda: torch.ops.aten._scaled_dot_product_attention_math(q, q, q)

    with pytest.raises(Void, match="_scaled_dot_product_attention_math in a static program"):
        facts_of(Program(make), "torch", "cuda")


def test_a_program_of_a_terabyte_takes_no_memory() -> None:
    """The resident peak moves by far less than the program holds."""
    if not resident.reset_peak():
        pytest.skip("the kernel does not let the resident peak be reset")
    before = resident.peak_bytes()
    found = facts_of(product("cuda", rows=2**35), "torch", "cuda")
    after = resident.peak_bytes()
    assert found[PEAK] > 1e12
    assert before is not None
    assert after is not None
    assert after - before < 200e6


def test_an_unknown_framework_is_refused() -> None:
    """Nothing is compiled for a framework that no static module knows."""
    with pytest.raises(EngineUnavailable, match="no static tier knows mine programs"):
        facts_of(product("cpu"), "mine", "cpu")


def test_what_is_at_the_peak_is_told_by_kind() -> None:
    """Int8 weights and keys, a row of a mask; activations are what the call makes."""
    found = compiled(Attention(), "torch", "cuda").figures
    assert found[f"{AT_PEAK}weights"] == 2 * 512 * 4096
    assert found[f"{AT_PEAK}cache"] == 2 * 8 * 4096 * 64
    assert found[f"{AT_PEAK}mask"] == 4096
    named = sum(found[f"{AT_PEAK}{kind}"] for kind in ("weights", "cache", "mask"))
    assert found[f"{AT_PEAK}activations"] == found[PEAK] - named - 2 * 512
    assert found[LOADED] == named + 2 * 512


@pytest.mark.parametrize(
    ("planted", "kind", "bytes_more", "word", "text"),
    [
        ("dense mask", "mask", 4095 * 4096, "at the peak", "mask bool[1,1,4096,4096], 16.78 MB"),
        (
            "weight widened", "weights", 512 * 4096, "weights.layers.*.down",
            "int8[512,4096] and bf16[512,4096] (weights.layers.1.down), 6.291 MB",
        ),
        (
            "cache dequantised whole", "activations", None, "largest activation",
            "bf16[1,8,4096,64] of _to_copy in *.Attention.dequantised, 4.194 MB",
        ),
    ],
)  # fmt: skip
def test_a_planted_fault_raises_its_figure_and_its_word_names_the_tensor(
    planted: str, kind: str, bytes_more: int | None, word: str, text: str
) -> None:
    """Of the kind that it belongs to, and of no other that is named."""
    right = compiled(Attention(), "torch", "cuda")
    wrong = compiled(Attention(planted), "torch", "cuda")
    grown = {
        name.removeprefix(AT_PEAK): value - right.figures[name]
        for name, value in wrong.figures.items()
        if name.startswith(AT_PEAK) and value > 1.05 * right.figures[name]
    }
    assert set(grown) == {kind}
    assert bytes_more is None or grown[kind] == bytes_more
    assert wrong.figures[PEAK] > 1.1 * right.figures[PEAK]
    start, _, end = text.partition("*") if "of" in text else (text, "", "")
    assert wrong.words[word].startswith(start)
    assert wrong.words[word].endswith(end)
    assert right.words.get(word) != wrong.words[word]


def test_what_the_program_does_not_name_is_loaded_or_made() -> None:
    """Without `held` the only kind is what the call makes; the words tell where it comes from."""

    def make() -> Callable[[], object]:
        w = torch.empty(1024, 1024, device="cuda")
        return lambda: (w @ w).relu()

    found = compiled(Program(make), "torch", "cuda")
    assert {n: v for n, v in found.figures.items() if n.startswith(AT_PEAK)} == {
        f"{AT_PEAK}activations": 2 * 4 * 2**20
    }
    assert found.words["at the peak"].startswith("f32[1024,1024] of empty in ")
    assert ".make, " in found.words["at the peak"]
    assert found.words["largest activation"].startswith("f32[1024,1024] of mm in ")


def test_modules_name_what_they_make() -> None:
    """By the path that a checkpoint would use."""

    def make() -> Callable[[], object]:
        layers = [torch.nn.Linear(512, 512), torch.nn.SiLU()]
        block, x = torch.nn.Sequential(*layers), torch.empty(1024, 512)
        return lambda: block(x)

    words = compiled(Program(make), "torch", "cpu").words
    assert words["largest activation"] == "f32[1024,512] of addmm in Sequential.0, 2.097 MB"


def test_a_subclass_counts_as_the_tensors_within() -> None:
    """Held are bytes and scales; its product is what the subclass makes of it, widening and all."""
    held: dict[str, Any] = {}

    def make() -> Callable[[], object]:
        weight = Scaled(
            torch.empty(256, 128, dtype=torch.int8, device="cuda"),
            torch.empty(256, 1, dtype=torch.bfloat16, device="cuda"),
        )
        x = torch.empty(4, 128, dtype=torch.bfloat16, device="cuda")
        held.update({"weights.head": weight, "inputs.x": x})
        return lambda: torch.nn.functional.linear(x, weight)

    program = Program(make)
    program.held = lambda: held  # type: ignore[attr-defined]
    found = facts_of(program, "torch", "cuda")
    matrix, x, out = 256 * 128, 2 * 4 * 128, 2 * 4 * 256
    assert found[LOADED] == matrix + 2 * 256 + x
    assert found[f"{AT_PEAK}weights"] == matrix + 2 * 256
    assert found[f"{AT_PEAK}activations"] == 2 * matrix + 2 * matrix  # widened, then scaled
    assert found[OPERATIONS] == 2 * 4 * matrix
    wide, scaled, product = 3 * matrix, 4 * matrix + 2 * 256, x + 2 * matrix + out
    assert found[TRAFFIC] == wide + scaled + product
    assert found["static_traffic/at_least"] == matrix + 2 * 256 + x + out


def test_products_of_packed_weights_are_counted() -> None:
    """Torch has no formula of its own for them, and a model of int8 would seem to do no work."""

    def make() -> Callable[[], object]:
        x = torch.empty(4, 128, dtype=torch.bfloat16)
        w, scales = torch.empty(256, 128, dtype=torch.int8), torch.empty(256, dtype=torch.bfloat16)
        return lambda: torch.ops.aten._weight_int8pack_mm(x, w, scales)

    assert facts_of(Program(make), "torch", "cpu")[OPERATIONS] == 2 * 4 * 256 * 128


def test_a_program_that_cannot_be_built_or_run_names_itself() -> None:
    """In one line, with what it raised."""

    def make() -> Callable[[], object]:
        raise IndexError("no such layer\nin detail")

    with pytest.raises(Void, match=r"^decode: make\(\) raised IndexError: no such layer$"):
        facts_of(Program(make), "torch", "cpu")
    with pytest.raises(Void, match=r"^decode: the call raised TypeError: "):
        facts_of(Program(lambda: lambda: torch.empty("wide")), "torch", "cpu")
    program = product("cpu")
    program.held = lambda: ["weights"]  # type: ignore[attr-defined]
    with pytest.raises(Void, match=r"^decode: held\(\) raised AttributeError: "):
        facts_of(program, "torch", "cpu")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_weights_of_torchao_are_their_inner_tensors(target: str) -> None:
    """A matrix of bytes and a scale for each row."""
    pytest.importorskip("torchao", reason="needs torchao")
    from torchao.quantization import Int8Tensor

    held: dict[str, Any] = {}

    def make() -> Callable[[], object]:
        data = torch.empty(256, 128, dtype=torch.int8, device=target)
        scale = torch.empty(256, 1, dtype=torch.bfloat16, device=target)
        x = torch.empty(4, 128, dtype=torch.bfloat16, device=target)
        held["weights.head"] = Int8Tensor(data, scale, [1, 128], torch.bfloat16)
        return lambda: torch.nn.functional.linear(x, held["weights.head"])

    program = Program(make)
    program.held = lambda: held  # type: ignore[attr-defined]
    found = facts_of(program, "torch", target)
    assert found[f"{AT_PEAK}weights"] == 256 * 128 + 2 * 256
    assert found[OPERATIONS] == 2 * 4 * 256 * 128


def test_int4_weights_of_torchao_are_their_inner_tensors() -> None:
    """As they are packed for the product on CUDA, by whose name it is called."""
    pytest.importorskip("torchao", reason="needs torchao")
    from torchao.quantization import Int4TilePackedTo4dTensor

    rows, width, group = 256, 1024, 128
    held: dict[str, Any] = {}

    def make() -> Callable[[], object]:
        packed = torch.empty((rows // 8, width // 128, 32, 4), dtype=torch.int32, device="cuda")
        scales = torch.empty(width // group, rows, 2, dtype=torch.bfloat16, device="cuda")
        shape = torch.Size((rows, width))
        weight = Int4TilePackedTo4dTensor(packed, scales, [1, group], shape)
        x = torch.empty(4, width, dtype=torch.bfloat16, device="cuda")
        held["weights.head"] = weight
        product = torch.ops.aten._weight_int4pack_mm
        return lambda: product(x, weight.qdata, group, weight.scale_and_zero)

    program = Program(make)
    program.held = lambda: held  # type: ignore[attr-defined]
    found = facts_of(program, "torch", "cuda")
    assert found[f"{AT_PEAK}weights"] == rows * width // 2 + width // group * rows * 2 * 2
    assert found[OPERATIONS] == 2 * 4 * rows * width
