"""The TOML reader: what a row becomes, and how a mistake in a file is named."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from perfsuite.workloads import (
    CatalogueError,
    MergeError,
    Model,
    Workload,
    catalogue_with_checkpoint,
    load_catalogue,
    load_models,
    with_checkpoint,
)
from perfsuite.workloads.catalogue import parse_document, parse_models

MODEL = """
[tiny]
layers = 1
hidden_size = 64
heads = 4
kv_heads = 2
head_dim = 16
intermediate_size = 128
vocab_size = 256
max_context = 128
"""

DOCUMENT = """
document = "mine"
[cells]
id = "mine-{model}-{mode}-b{batch}-i{input}-s{shared}-u{output}-c{cache}"
kind = "generate"
model = "tiny"
device = "a laptop"
dtype = "float32"
options = { common = "yes", both = "table" }
[[cells.rows]]
place = "row of batch {batch}"
mode = ["a", "b"]
batch = "1:5:x2"
output = 8
iterations = 3
warmup = 2
options = { both = "row" }
"""

ROOT = Path(__file__).parents[3]
MINE = replace(load_models()["llama3_8b"], name="My Model-8B", checkpoint="somewhere", layers=7)


def parse(document: str = DOCUMENT, model: str = MODEL) -> tuple[Workload, ...]:
    """The cells of a document text with the tiny model."""
    return parse_document(document, "mine.toml", parse_models(model, "models.toml"))


def test_ids_are_unique_and_plain() -> None:
    """Every id begins with its document's name, is unique and needs no quoting in a shell."""
    workloads = load_catalogue()
    ids = [workload.id for workload in workloads]
    assert len(set(ids)) == len(ids) > 1000
    for workload in workloads:
        assert workload.id.startswith(workload.document + "-")
        assert re.fullmatch(r"[a-z0-9_.-]+", workload.id)


def printed(code: str) -> str:
    """What a fresh interpreter without site packages prints."""
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_reading_is_fast() -> None:
    """The whole catalogue is read in well under a tenth of a second of processor time."""
    code = (
        "import time; from perfsuite.workloads import load_catalogue;"
        "start = time.process_time(); load_catalogue(); print(time.process_time() - start)"
    )
    assert min(float(printed(code)) for _ in range(3)) < 0.1


def test_importing_needs_the_standard_library_only() -> None:
    """The package imports neither numpy nor pytest nor a tensor framework."""
    code = (
        "import sys; import perfsuite.workloads;"
        "print(*{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    assert set(printed(code).split()) <= {"__main__", "perfsuite"}


def test_a_row_becomes_the_product_of_its_sweeps_and_modes() -> None:
    """Sweeps and modes multiply, the row's keys win over the table's, options are merged."""
    workloads = parse()
    assert [w.id for w in workloads] == [
        f"mine-tiny-{mode}-b{batch}-i0-s0-u8-c0" for mode in "ab" for batch in (1, 2, 4)
    ]
    last = workloads[-1]
    assert last.place == "row of batch 4"
    assert (last.iterations, last.warmup_iterations, last.output_tokens) == (3, 2, 8)
    assert last.options == (("both", "row"), ("common", "yes"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("output = 8", "outptu = 8", "row 1: unknown key 'outptu'"),
        ('device = "a laptop"', 'devise = "x"', "mine.toml, [cells]: unknown key 'devise'"),
        ('dtype = "float32"', "", "row 1: missing key 'dtype'"),
        ('dtype = "float32"', "dtype = 32", "dtype: expected a string, got 32"),
        ('kind = "generate"', 'kind = "think"', "kind: expected one of"),
        ('model = "tiny"', 'model = "huge"', "model: 'huge' is not in models.toml"),
        ("1:5:x2", "1:5:x1", "row 1, batch: sweep '1:5:x1': factor x1"),
        ("output = 8", "output = -8", "output: expected a count or a sweep, got -8"),
        ("output = 8", "output = true", "output: expected a count or a sweep, got True"),
        ("iterations = 3", "iterations = 1.5", "iterations: expected a count, got 1.5"),
        ('["a", "b"]', "[]", "mode: expected a name"),
        ('["a", "b"]', '["a", "a"]', "id mine-tiny-a-b1-i0-s0-u8-c0 is already"),
        ('both = "row"', "both = 1", "row 1, options: expected a table of strings"),
        ("{model}-", "{modle}-", "id: 'mine-{modle}"),
        ('id = "mine-', 'id = "yours-', "id: expected mine- and letters"),
        ('id = "mine-', 'id = "mine-A', "id: expected mine- and letters"),
        ('document = "mine"', "", "mine.toml: expected the key document"),
        ('document = "mine"', "document = ", "mine.toml: not valid TOML"),
    ],
)
def test_a_mistake_in_a_document_is_named(old: str, new: str, words: str) -> None:
    """A broken document is an error that names file, table and key."""
    assert old in DOCUMENT
    with pytest.raises(CatalogueError, match=re.escape(words)) as caught:
        parse(DOCUMENT.replace(old, new, 1))
    assert str(caught.value).startswith("mine.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("layers = 1", "layer = 1", "[tiny]: unknown key 'layer'"),
        ("layers = 1", "", "[tiny]: missing key 'layers'"),
        ("layers = 1", "layers = true", "[tiny], layers: expected int, got True"),
        ("layers = 1", "layers = 1\nrope_theta = 5", "rope_theta: expected float, got 5"),
        ("layers = 1", "layers = 1\nrope_scaling = 8.0", "rope_scaling: expected"),
        ("layers = 1", "layers = 1\nrope_scaling = { factor = 8.0 }", "rope_scaling: missing key"),
        ("kv_heads = 2", "kv_heads = 3", "heads 4 is not a multiple of kv_heads 3"),
        ("kv_heads = 2", "kv_heads = 0", "heads 4 is not a multiple of kv_heads 0"),
        ("[tiny]", "tiny = 1\n[other]", "[tiny]: expected a table, got 1"),
    ],
)
def test_a_mistake_in_a_shape_is_named(old: str, new: str, words: str) -> None:
    """A broken models file is an error that names file, table and key."""
    assert old in MODEL
    with pytest.raises(CatalogueError, match=re.escape(words)) as caught:
        parse_models(MODEL.replace(old, new, 1), "models.toml")
    assert str(caught.value).startswith("models.toml, [tiny]")


@pytest.mark.parametrize(
    ("name", "parameters", "bytes_per_token"),
    [
        ("llama2_7b", 6_738_415_616, 524_288),
        ("llama2_13b", 13_015_864_320, 819_200),
        ("llama3_8b", 8_030_261_248, 131_072),
        ("llama3_1_8b", 8_030_261_248, 131_072),
        ("gemma_2b", 2_506_172_416, 18_432),
        ("gemma_7b", 8_537_680_896, 458_752),
        ("mistral_7b", 7_248_023_552, 131_072),
        ("codellama_7b", 6_738_546_688, 524_288),
        ("codellama_13b", 13_016_028_160, 819_200),
        ("codellama_34b", 33_743_970_304, 196_608),
        ("yi_6b_200k", 6_061_035_520, 65_536),
        ("attention_q8_kv1_d128", None, 512),
    ],
)
def test_shapes(name: str, parameters: int | None, bytes_per_token: int) -> None:
    """Each shape has the published number of weights and of 16-bit cache bytes for a token."""
    model = load_models()[name]
    assert parameters is None or model.parameters == parameters
    assert 2 * model.kv_values_per_token == bytes_per_token


def test_every_model_is_used_and_checked() -> None:
    """No shape lies in models.toml that no document asks for."""
    assert {workload.model.name for workload in load_catalogue()} == set(load_models())


def test_rotary_bases() -> None:
    """Each family has its own rotary base."""
    bases = {name: model.rope_theta for name, model in load_models().items()}
    assert {name for name, base in bases.items() if base == 1e6} == {
        "mistral_7b",
        "codellama_7b",
        "codellama_13b",
        "codellama_34b",
    }
    assert bases["llama3_8b"] == bases["llama3_1_8b"] == 5e5
    assert bases["yi_6b_200k"] == 1e7
    for name in ("llama2_7b", "llama2_13b", "gemma_2b", "gemma_7b"):
        assert bases[name] == 1e4


def test_features_of_shapes() -> None:
    """Gemma's and Llama 3.1's peculiarities are set, and nobody else's."""
    models = load_models()
    gemma = {name for name, model in models.items() if model.activation == "gelu_tanh"}
    assert gemma == {"gemma_2b", "gemma_7b"}
    for name, model in models.items():
        for feature in (model.tied_embeddings, model.scaled_embeddings, model.norm_adds_one):
            assert feature == (name in gemma)
        assert (model.rope_scaling is not None) == (name == "llama3_1_8b")


def test_another_model_takes_the_name_in_the_id() -> None:
    """The model's name replaces the document's, or follows the document where none is named."""
    by_id = {workload.id: workload for workload in load_catalogue()}
    own = with_checkpoint(by_id["llm-llama3_8b-128-single_user"], MINE)
    assert own.id == "llm-my_model_8b-128-single_user"
    assert own.model is MINE
    assert own.model.checkpoint == "somewhere"
    own = with_checkpoint(by_id["torchao-8192-normal"], MINE)
    assert own.id == "torchao-my_model_8b-8192-normal"


def test_cells_that_differ_in_the_model_alone_become_one() -> None:
    """With one model for all, every id is unique and names all the cells that it stands for."""
    full = load_catalogue()
    own = catalogue_with_checkpoint(full, MINE)
    ids = [workload.id for workload in own]
    assert len(set(ids)) == len(ids) < len(full)
    assert sorted(origin for workload in own for origin in workload.stands_for) == sorted(
        workload.id for workload in full
    )
    by_id = {workload.id: workload for workload in own}
    assert by_id["llm-my_model_8b-128-single_user"].stands_for == (
        "llm-llama2_13b-128-single_user",
        "llm-llama3_8b-128-single_user",
        "llm-mistral_7b-128-single_user",
    )


def test_cells_that_differ_in_more_do_not_merge_silently() -> None:
    """Two cells of one id but of different sizes are an error, not one of the two."""
    first = load_catalogue()[0]
    other = replace(first, model=replace(first.model, name="other"), output_tokens=1)
    other = replace(other, id=first.id.replace(first.model.name, "other"))
    with pytest.raises(MergeError, match=re.escape(other.id)):
        catalogue_with_checkpoint((first, other), MINE)


def test_the_catalogue_is_read_once() -> None:
    """A second call gives the same objects without reading."""
    load_catalogue()
    start = time.perf_counter()
    assert load_catalogue() is load_catalogue()
    assert time.perf_counter() - start < 0.01
    assert isinstance(load_models()["gemma_2b"], Model)
