"""Reading compiled HLO: sizes, what runs how often, and what moves, each counted by hand."""

from __future__ import annotations

import pytest

from perfsuite.static import findings, hlo
from perfsuite.static.collectives import exchanges
from perfsuite.static.hlo import Module, leaves
from perfsuite.static.operations import matrix_operations
from perfsuite.static.schedule import schedule
from perfsuite.static.traffic import moves

CACHE = "bf16[4,1024,128]{2,1,0:T(8,128)(2,1)}"
CACHE_BYTES = 4 * 1024 * 128 * 2


def module(entry: str, others: str = "", aliases: str = "") -> Module:
    """A module of these lines; the last of the entry is its root."""
    *lines, root = [line.strip() for line in entry.strip().splitlines()]
    body = "\n".join([f"  {line}" for line in lines] + [f"  ROOT {root}"])
    header = f"HloModule jit_f, is_scheduled=true{aliases}, entry_computation_layout={{()->()}}"
    return hlo.parse(f"{header}\n\n{others}\nENTRY %main (p: f32[]) -> f32[] {{\n{body}\n}}\n")


def moved(found: Module) -> tuple[int, int]:
    """(read, written) of all that runs."""
    every = moves(found, schedule(found).steps)
    return sum(m.read for m in every), sum(m.written for m in every)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("bf16[96,512]{1,0:T(8,128)(2,1)}", 96 * 512 * 2),
        ("f32[3,100]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[100,3]{0,1:T(8,128)}", 8 * 128 * 4),
        ("bf16[2,5,1]{2,1,0:T(8,128)(2,1)}", 2 * 8 * 128 * 2),
        ("s32[96]{0:T(128)}", 128 * 4),
        ("s32[]{:T(128)}", 128 * 4),
        ("s4[16,256]{1,0:T(8,128)(8,1)E(4)}", 16 * 256 // 2),
        ("pred[8,128]{1,0:T(8,128)(4,1)}", 8 * 128),
        ("u32[5]{0}", 20),
        ("token[]", 0),
    ],
)
def test_an_array_takes_its_tiles(text: str, size: int) -> None:
    """The dimensions of the tile are filled up to it, whatever their order."""
    found = module(f"%p = {text} parameter(0)")
    assert found.entry.root.array.bytes == size


def test_a_nested_shape_is_read_whole() -> None:
    """As asynchronous starts have it, with comments between."""
    found = module("""
        %p = f32[8,128]{1,0:T(8,128)} parameter(0)
        %s = ((f32[8,128]{1,0:T(8,128)}), /*index=1*/f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:8], [0:128]}
    """)  # noqa: E501
    arrays = list(leaves(found.entry.root.shape))
    assert [a.text for a in arrays] == ["f32[8,128]", "f32[8,128]", "s32[]"]
    assert [a.is_in_hbm for a in arrays] == [True, False, False]
    assert found.entry.root.operands == ("p",)


def test_a_text_without_an_entry_is_refused() -> None:
    """Nothing is counted for a format that is not this one."""
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("module @jit_f {\n}\n")


def test_operands_and_results_move_once() -> None:
    """An operand that is read twice is read once; what is on the chip moves nothing."""
    found = module("""
        %a = f32[8,128]{1,0:T(8,128)} parameter(0)
        %b = f32[8,128]{1,0:T(8,128)S(1)} add(%a, %a)
        %c = f32[8,128]{1,0:T(8,128)} multiply(%b, %b)
    """)
    assert moved(found) == (4096, 4096)


def test_an_update_in_place_moves_the_update() -> None:
    """One row of 128 values for each of 4; the cache itself stays."""
    found = module(f"""
        %cache = {CACHE} parameter(0)
        %row = bf16[4,1,128]{{2,1,0:T(2,128)(2,1)S(1)}} parameter(1)
        %at = s32[]{{:T(128)S(6)}} parameter(2)
        %new = {CACHE} dynamic-update-slice(%cache, %row, %at, %at, %at)
    """)
    assert moved(found) == (0, 4 * 128 * 2)


def test_a_copy_moves_twice() -> None:
    """Read and written in full: what a cache costs that is not donated."""
    found = module(f"""
        %cache = {CACHE} parameter(0)
        %copy = {CACHE} copy(%cache)
    """)
    assert moved(found) == (CACHE_BYTES, CACHE_BYTES)


FUSED_UPDATE = f"""
%fused (a: bf16[4,1024,128], b: f32[4,1,128], c: s32[]) -> bf16[4,1024,128] {{
  %a = {CACHE} parameter(0)
  %b = f32[4,1,128]{{2,1,0:T(2,128)}} parameter(1)
  %c = s32[]{{:T(128)}} parameter(2)
  %row = bf16[4,1,128]{{2,1,0:T(2,128)(2,1)}} convert(%b)
  ROOT %new = {CACHE} dynamic-update-slice(%a, %row, %c, %c, %c)
}}
"""
CALL_OF_FUSED = f"""
        %cache = {CACHE} parameter(0)
        %row = f32[4,1,128]{{2,1,0:T(2,128)S(1)}} parameter(1)
        %at = s32[]{{:T(128)S(6)}} parameter(2)
        %new = {CACHE} fusion(%cache, %row, %at), kind=kLoop, calls=%fused
        """


def test_a_fused_update_in_place_moves_the_update() -> None:
    """The cache is passed through the fusion and not read."""
    assert moved(module(CALL_OF_FUSED, FUSED_UPDATE)) == (0, 4 * 128 * 2)


def test_a_fused_update_of_something_new_writes_all() -> None:
    """Zeros with a row in them are written in full."""
    made = FUSED_UPDATE.replace("dynamic-update-slice(%a", "dynamic-update-slice(%zeros").replace(
        "  %row =", f"  %zeros = {CACHE} negate(%a)\n  %row ="
    )
    assert moved(module(CALL_OF_FUSED, made)) == (CACHE_BYTES, CACHE_BYTES)


FUSED_SLICE = f"""
%sliced (a: bf16[4,1024,128], c: s32[]) -> f32[4,16,128] {{
  %a = {CACHE} parameter(0)
  %c = s32[]{{:T(128)}} parameter(1)
  %wide = f32[4,1024,128]{{2,1,0:T(8,128)}} convert(%a)
  ROOT %part = f32[4,16,128]{{2,1,0:T(8,128)}} dynamic-slice(%wide, %c, %c, %c), dynamic_slice_sizes={{4,16,128}}
}}
"""  # noqa: E501


def test_a_fused_slice_reads_what_it_takes() -> None:
    """16 of 1024 rows in the cache's own type, whatever it is converted to on the way."""
    found = module(
        f"""
        %cache = {CACHE} parameter(0)
        %at = s32[]{{:T(128)S(6)}} parameter(1)
        %part = f32[4,16,128]{{2,1,0:T(8,128)}} fusion(%cache, %at), kind=kLoop, calls=%sliced
        """,
        FUSED_SLICE,
    )
    assert moved(found) == (4 * 16 * 128 * 2, 4 * 16 * 128 * 4)


def test_a_gather_reads_the_rows_it_takes() -> None:
    """And the indices; not the table."""
    found = module("""
        %table = bf16[32000,512]{1,0:T(8,128)(2,1)} parameter(0)
        %rows = s32[1024]{0:T(1024)} parameter(1)
        %x = bf16[1024,512]{1,0:T(8,128)(2,1)S(1)} gather(%table, %rows), offset_dims={1}
    """)
    assert moved(found) == (1024 * 512 * 2 + 4096, 0)


def test_a_prefetch_counts_where_it_starts() -> None:
    """The copy on the chip is read from there, as often as anything wants it."""
    found = module("""
        %w = bf16[512,512]{1,0:T(8,128)(2,1)} parameter(0)
        %s = (bf16[512,512]{1,0:T(8,128)(2,1)S(1)}, bf16[512,512]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w)
        %d = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} copy-done(%s)
        %x = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} add(%d, %d)
        %y = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} add(%d, %x)
    """)  # noqa: E501
    assert moved(found) == (512 * 512 * 2, 0)


def test_a_prefetch_of_the_run_before_counts_once() -> None:
    """XLA writes it at both ends; a run in a row makes the one at the end."""
    pair = "(bf16[512,512]{1,0:T(8,128)(2,1)S(1)}, bf16[512,512]{1,0:T(8,128)(2,1)}, u32[]{:S(2)})"
    found = module(f"""
        %w = bf16[512,512]{{1,0:T(8,128)(2,1)}} parameter(0)
        %s = {pair} copy-start(%w), cross_program_prefetch_index=0
        %d = bf16[512,512]{{1,0:T(8,128)(2,1)S(1)}} copy-done(%s)
        %t = {pair} copy-start(%w)
        %e = bf16[512,512]{{1,0:T(8,128)(2,1)S(1)}} copy-done(%t)
    """)
    assert moved(found) == (512 * 512 * 2, 0)


LOOP = """
%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)S(6)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %two = s32[]{:T(128)S(6)} constant(2)
  %j = s32[]{:T(128)S(6)} add(%i, %two)
  %y = f32[8,128]{1,0:T(8,128)} all-reduce(%x), channel_id=1, to_apply=%sum
  ROOT %t = (s32[]{:T(128)S(6)}, f32[8,128]{1,0:T(8,128)}) tuple(%j, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[]{:T(128)S(6)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %k = s32[]{:T(128)S(6)} get-tuple-element(%q), index=0
  %end = s32[]{:T(128)S(6)} constant(9)
  ROOT %less = pred[]{:T(512)S(6)} compare(%k, %end), direction=LT
}
"""
LOOP_ENTRY = """
    %x = f32[8,128]{1,0:T(8,128)} parameter(0)
    %start = s32[]{:T(128)S(6)} constant(1)
    %init = (s32[]{:T(128)S(6)}, f32[8,128]{1,0:T(8,128)}) tuple(%start, %x)
    %loop = (s32[]{:T(128)S(6)}, f32[8,128]{1,0:T(8,128)}) while(%init), condition=%condition, body=%body
"""  # noqa: E501


def test_a_loop_counts_its_turns() -> None:
    """1, 3, 5, 7: four turns of a body that reads and writes an array and exchanges it."""
    found = module(LOOP_ENTRY, LOOP)
    plan = schedule(found)
    assert moved(found) == (4 * 4096, 4 * 4096)
    assert [(e.kind, e.times, e.bytes) for e in exchanges(found, plan.steps)] == [
        ("all-reduce", 4, 4 * 4096)
    ]
    assert plan.unknown == ()


def test_a_loop_that_depends_on_data_is_counted_once_and_told() -> None:
    """Its counter starts at an argument."""
    unknown = LOOP_ENTRY.replace("constant(1)", "parameter(1)")
    plan = schedule(module(unknown, LOOP))
    assert plan.unknown == ("loop",)
    assert max(step.times for step in plan.steps) == 1


def test_collectives_are_counted_by_kind_and_pairs_once() -> None:
    """A start and its done are one; the bytes are those of the larger side."""
    found = module("""
        %x = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
        %g = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) all-gather-start(%x), dimensions={0}
        %h = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather-done(%g)
        %r = bf16[8,128]{1,0:T(8,128)(2,1)} reduce-scatter(%h), dimensions={0}
        %p = bf16[8,128]{1,0:T(8,128)(2,1)} collective-permute(%r), source_target_pairs={{0,1}}
    """)  # noqa: E501
    every = exchanges(found, schedule(found).steps)
    assert [(e.kind, e.bytes) for e in every] == [
        ("all-gather", 64 * 256),
        ("reduce-scatter", 64 * 256),
        ("collective-permute", 8 * 256),
    ]


def test_a_reduction_that_takes_its_part_is_a_reduce_scatter() -> None:
    """XLA for TPUs writes it as a fusion of that name."""
    others = """
%all-reduce-scatter (a: bf16[64,128]) -> bf16[8,128] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all = bf16[64,128]{1,0:T(8,128)(2,1)} all-reduce(%a), to_apply=%sum
  %id = u32[] partition-id()
  ROOT %part = bf16[8,128]{1,0:T(8,128)(2,1)} dynamic-slice(%all, %id, %id)
}
"""
    found = module(
        """
        %x = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
        %y = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
        """,
        others,
    )
    assert [(e.kind, e.bytes) for e in exchanges(found, schedule(found).steps)] == [
        ("reduce-scatter", 64 * 256)
    ]


@pytest.mark.parametrize(
    ("lines", "operations"),
    [
        ("%y = f32[8,16]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
         2 * 8 * 16 * 32),
        ("%y = f32[8,16]{1,0} convolution(%a, %b), dim_labels=bf_io->bf", 2 * 8 * 16 * 32),
        ("%y = f32[8]{0} reduce(%a, %z), dimensions={1}, to_apply=%sum,"
         ' metadata={op_name="jit(f)/bt,t->b/dot_general"}', 2 * 8 * 32),
        ('%y = f32[8]{0} reduce(%a, %z), dimensions={1}, metadata={op_name="jit(f)/reduce_max"}',
         0),
    ],
)  # fmt: skip
def test_products_are_counted_however_they_are_written(lines: str, operations: int) -> None:
    """As a dot, as a convolution, as the sum of a product on the vector unit."""
    found = module(f"""
        %a = f32[8,32]{{1,0}} parameter(0)
        %b = f32[32,16]{{1,0}} parameter(1)
        %z = f32[]{{}} parameter(2)
        {lines}
    """)
    assert matrix_operations(found, schedule(found).steps) == operations


def test_a_batched_product_counts_where_window_and_input_meet() -> None:
    """A window as long as the batch, dilated so that each place meets one: 4 products."""
    found = module("""
        %a = f32[4,8,32]{2,1,0} parameter(0)
        %b = f32[4,32,16]{2,1,0} parameter(1)
        %y = f32[4,8,16]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
    """)  # noqa: E501
    assert matrix_operations(found, schedule(found).steps) == 4 * 2 * 8 * 16 * 32


def test_what_is_not_donated_is_named_unless_it_is() -> None:
    """An output as large as an argument could have taken its memory over."""
    lines = """
        %cache = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="cache[0][1]"}
        %copy = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} copy(%cache)
        %t = (bf16[64,1024,128]{2,1,0:T(8,128)(2,1)}) tuple(%copy)
    """  # noqa: E501
    copied = module(lines)
    plan = schedule(copied)
    words = findings.of(copied, plan, moves(copied, plan.steps), [])
    assert words == {
        "argument copied": "cache[0][1] bf16[64,1024,128], 16.78 MB",
        "largest temporary": "copy bf16[64,1024,128] of cache[0][1], 16.78 MB",
    }
    donated = module(lines, aliases=", input_output_alias={ {0}: (0, {}, may-alias) }")
    assert findings.of(donated, schedule(donated), [], []) == {}


KERNEL = """
        %cache = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
        %row = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
        %new = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} custom-call(%row, %cache), custom_call_target="tpu_custom_call", output_to_operand_aliasing={{}: (1, {})}
"""  # noqa: E501


def test_a_kernel_counts_all_that_it_is_given() -> None:
    """An array that it updates in place is taken as read, and the findings say so."""
    found = module(KERNEL)
    plan = schedule(found)
    assert moved(found) == (64 * 128 * 2 + 64 * 1024 * 128 * 2, 0)
    told = findings.of(found, plan, [], [])["kernels"]
    assert told == "1 runs, 1 state no cost: all that they are given counts"


def test_a_kernel_that_states_its_cost_is_believed() -> None:
    """In bytes and in operations, as its author wrote them."""
    cost = (
        ', backend_config={"custom_call_config":{"body":"TUzvUg","cost_estimate":{"flops":"77",'
        '"transcendentals":"5","bytes_accessed":"12345"}}}'
    )
    found = module(KERNEL.rstrip() + cost)
    plan = schedule(found)
    assert moved(found) == (12345, 0)
    assert matrix_operations(found, plan.steps) == 77
    assert findings.of(found, plan, [], [])["kernels"] == "1 runs"
