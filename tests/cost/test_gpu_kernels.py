"""GPU kernel models: hand-computed waves and splits, and laws that hold for every shape."""

from dataclasses import replace

import numpy as np
import pytest
from gpus import A100, H100
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.gpu import attention, conv, gemm, vector
from sim.cost.gpu.device import GpuDevice
from sim.cost.gpu.result import TERM_OF, hit_rate, soft_max
from sim.cost.gpu.sets import constants_for
from sim.errors import UnsupportedOpError

DEVICES = pytest.mark.parametrize("device", [A100, H100], ids=lambda d: d.name)
size = st.integers(1, 5000)


def scaled(device: GpuDevice, **factors: float) -> GpuDevice:
    values = {name: getattr(device, name) for name in device.__dataclass_fields__}
    for name, factor in factors.items():
        old = values[name]
        values[name] = {k: v * factor for k, v in old.items()} if isinstance(old, dict) else old * factor
    return GpuDevice(**values)


def sums(result) -> None:
    assert np.allclose(sum(result.terms_s.values()), result.time_s, rtol=1e-12)
    assert np.allclose(sum(result.breakdown_s().values()), result.time_s, rtol=1e-12)
    assert all(np.all(value >= -1e-15) for value in result.terms_s.values())
    assert set(result.terms_s) <= set(TERM_OF)


@DEVICES
@settings(max_examples=25, deadline=None)
@given(m=size, n=size, k=size)
def test_gemm_terms_sum_and_no_free_lunch(device, m, n, k):
    """Terms sum to the time; with data-sheet constants nothing beats compute or compulsory DRAM traffic."""
    for calibration in ("auto", "none"):
        result = gemm.gemm_s(m, n, k, device=device, constants=constants_for(device, calibration).gemm)
        sums(result)
    traffic = 2 * (m * k + n * k + m * n)
    roofline_s = max(2 * m * n * k / device.peak("bf16"), traffic / device.dram_bytes_per_s)
    assert result.time_s >= roofline_s * (1 - 1e-12)


@DEVICES
@settings(max_examples=20, deadline=None)
@given(m=size, n=size, k=size, factor=st.floats(1.0, 8.0))
def test_gemm_more_bandwidth_or_rate_is_never_slower(device, m, n, k, factor):
    """Each candidate's time falls with bandwidth and matrix rate, so the fastest candidate's does too."""
    c = constants_for(device).gemm
    base = gemm.gemm_s(m, n, k, device=device, constants=c).time_s
    for change in ({"dram_bytes_per_s": factor}, {"peak_flop_per_s": factor}):
        assert gemm.gemm_s(m, n, k, device=scaled(device, **change), constants=c).time_s <= base * (1 + 1e-12)


def test_gemm_waves_by_hand():
    """4096^3 on A100 with data-sheet constants: compute alone decides.

    128 x 256 tiles: 32 x 16 = 512 CTAs on 108 SMs = 5 waves of 2 * 128 * 256 * 4096 FLOP at
    312e12/108 FLOP/s: 464.6 us. 128 x 128 tiles: 1024 CTAs = 10 waves of half the work: the same.
    64 x 256 likewise. 32 x 128: 4096 CTAs = 38 waves of 2 * 32 * 128 * 4096: 441.4 us. 16 x 64:
    16384 CTAs = 152 waves of 1/32 of the first: 441.4 us. A split of 128 x 256 in 3 has
    1536 CTAs = 15 waves with k = ceil(4096/3/32) 32 = 1376: 468.2 us. 64 x 128: 2048 = 19 waves of
    1/4: 441.4 us. So the answer is 441.4 us = 19/4 * 92.9.
    """
    c = constants_for(A100, "none").gemm
    result = gemm.gemm_s(4096, 4096, 4096, device=A100, constants=c)
    wave_s = 2 * 128 * 256 * 4096 * 108 / 312e12
    assert result.terms_s["compute"] == pytest.approx(19 / 4 * wave_s, rel=1e-12)
    assert result.terms_s["launch"] == result.terms_s["split"] == result.terms_s["prologue"] == 0


def test_gemm_one_tile_by_hand():
    """64 x 8 x 64 on H100: one CTA of 64 x 8 (the least work in the menu), one k step, one wave.

    Compute: 2 * 64 * 8 * 64 FLOP on one of 132 SMs = 65536 * 132 / 989e12 s.
    """
    result = gemm.gemm_s(64, 8, 64, device=H100, constants=constants_for(H100, "none").gemm)
    assert (
        result.kernel["tile_m"],
        result.kernel["tile_n"],
        result.kernel["ctas"],
    ) == (64, 8, 1)
    assert result.terms_s["compute"] == pytest.approx(2 * 64 * 8 * 64 * 132 / 989e12, rel=1e-12)


def test_warm_weights_are_faster_than_cold_ones():
    """1 MB of weights used again stay in L2; in a network (infinitely many copies) they do not."""
    c = constants_for(A100).gemm
    warm, six, cold = (
        float(gemm.gemm_s(16, 512, 1024, device=A100, constants=c, weight_copies=w).time_s) for w in (1, 6, np.inf)
    )
    assert warm <= six < cold


def test_gemm_broadcasts_and_halves_bytes_and_doubles_rate():
    """A column of m against a row of k; int8 with data-sheet constants takes half the time of bf16."""
    c = constants_for(A100, "none").gemm
    m, k = np.array([[256], [4096]]), np.array([1024, 4096, 8192])
    result = gemm.gemm_s(m, 4096, k, device=A100, constants=c)
    assert result.time_s.shape == (2, 3)
    alone = gemm.gemm_s(4096, 4096, 8192, device=A100, constants=c)
    assert result.time_s[1, 2] == alone.time_s
    int8 = gemm.gemm_s(4096, 4096, 8192, device=A100, constants=c, dtype="int8")
    assert int8.terms_s["compute"] == pytest.approx(alone.terms_s["compute"] / 2, rel=1e-12)


def brute_force_splits(ctas: int, slots: int, blocks: int, limit: int = 128) -> int:
    """FlashAttention's `num_splits_heuristic`, line by line."""
    if ctas >= 0.8 * slots:
        return 1
    efficiencies = {}
    for i in range(1, min(limit, slots, blocks) + 1):
        if i == 1 or -(-blocks // i) != -(-blocks // (i - 1)):
            waves = ctas * i / slots
            efficiencies[i] = waves / np.ceil(waves)
    best = max(efficiencies.values())
    return next(i for i, e in efficiencies.items() if e >= 0.85 * best)


def test_flash_splits_by_hand():
    """8 CTAs, 108 slots, 64 blocks: i = 13 fills 104 of 108 (0.963) and 0.85 of it is 0.819. i = 11 has
    0.815; i = 12 leaves ceil(64/12) = ceil(64/11) = 6 blocks, so it is skipped: 13."""
    assert attention.flash_splits(8, 108, 64) == 13
    assert attention.flash_splits(90, 108, 64) == 1


@settings(max_examples=100, deadline=None)
@given(ctas=st.integers(1, 300), slots=st.integers(2, 300), blocks=st.integers(1, 600))
def test_flash_splits_equal_brute_force(ctas, slots, blocks):
    assert attention.flash_splits(ctas, slots, blocks) == brute_force_splits(ctas, slots, blocks)


@settings(max_examples=40, deadline=None)
@given(
    q=st.integers(1, 300), past=st.integers(0, 300), pack=st.integers(1, 8),
    rows=st.sampled_from([64, 128, 192]), columns=st.sampled_from([80, 96, 128]),
)  # fmt: skip
def test_causal_blocks_by_brute_force(q, past, pack, rows, columns):
    """Count, for every row tile, the KV blocks that hold a key which one of its queries may see."""
    expected, last = 0, 0
    for first in range(0, q * pack, rows):
        queries = [row // pack for row in range(first, min(first + rows, q * pack))]
        last = -(-(past + max(queries) + 1) // columns)
        expected += last
    tiles, total, longest = attention.causal_blocks(q, past, pack, rows, columns)
    assert (tiles, total, longest) == (-(-q * pack // rows), expected, last)


@DEVICES
@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(1, 64), q=st.integers(1, 2000), past=st.integers(0, 4000), kv=st.sampled_from([1, 2, 4, 8]),
    group=st.sampled_from([1, 4, 8]), d=st.sampled_from([64, 128]),
)  # fmt: skip
def test_attention_terms_sum_and_respect_the_roofline(device, b, q, past, kv, group, d):
    """The least work: causal products of every query with its keys, keys and values read once."""
    for calibration in ("auto", "none"):
        c = constants_for(device, calibration)
        sums(
            attention.attention_s(
                b,
                q,
                past,
                kv * group,
                kv,
                d,
                device=device,
                decode=c.decode,
                prefill=c.prefill,
            )
        )
    result = attention.attention_s(b, q, past, kv * group, kv, d, device=device, decode=c.decode, prefill=c.prefill)
    pairs = b * kv * group * (q * past + q * (q + 1) / 2)
    traffic = 2 * b * d * (2 * kv * group * q + 2 * kv * (past + q))
    roofline_s = traffic / device.dram_bytes_per_s
    if q > 1:  # the decode kernel is bound by memory; its products run on packed heads
        roofline_s = max(roofline_s, 4 * d * pairs / device.peak("bf16"))
    assert result.time_s[0] >= roofline_s * (1 - 1e-9)


def test_unknown_head_dimension_is_flagged():
    c = constants_for(H100)
    dims = np.array([64, 128, 256, 512])
    result = attention.attention_s(8, 1, 1023, 8, 1, dims, device=H100, decode=c.decode, prefill=c.prefill)
    assert result.flagged.tolist() == [False, False, False, True]


def test_ungrouped_decode_runs_the_prefill_kernel_on_flash2_only():
    assert attention.runs_decode_kernel([1, 1, 2], [8, 8, 8], [8, 1, 1], A100).tolist() == [False, True, False]
    assert attention.runs_decode_kernel(1, 8, 8, H100)


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 16), ci=st.integers(1, 300), co=st.integers(1, 300), s=st.integers(3, 60),
    stride=st.sampled_from([1, 2]),
)  # fmt: skip
def test_conv_terms_sum_and_direct_respects_the_roofline(b, ci, co, s, stride):
    """Implicit GEMM does every multiplication; Winograd is flagged and never chosen where it cannot run."""
    direct = GpuDevice(**{n: getattr(A100, n) for n in A100.__dataclass_fields__} | {"algorithms": ("direct",)})
    for device, calibration in ((A100, "auto"), (direct, "none")):
        c = constants_for(device, calibration)
        result = conv.conv_s(
            b,
            ci,
            co,
            s,
            s,
            3,
            device=device,
            constants=c.conv,
            gemm=c.gemm,
            stride=stride,
            padding=1,
        )
        sums(result)
        assert stride == 1 or not result.flagged
    out = (s - 1) // stride + 1
    assert result.time_s >= 2 * b * out * out * co * ci * 9 / 19.5e12 * (1 - 1e-12)


def test_winograd_counts_its_tiles():
    """8 x 8 outputs are 4 tiles of 4 x 4, 9 x 9 are 9: 2.25 times the products (at many channels)."""
    c = constants_for(A100, "none")
    times = [
        conv._winograd(
            4, *(np.asarray(float(x)) for x in (1024, 1024, 1024, s, s)), A100, c.conv,
            c.conv.inside(c.gemm, host=False),
            "fp32", conv.SIMT,
        ).terms_s["compute"]
        for s in (8, 9)
    ]  # fmt: skip
    assert times[1] / times[0] == pytest.approx(2.25, rel=0.01)


def test_vector_kernel_is_a_stream():
    """add of 2^28 fp32 elements: 3 x 1 GiB at 2.039e12 B/s with data-sheet constants."""
    c = constants_for(A100, "none").vector["binary"]
    result = vector.vector_s("add", 2**14, 2**14, device=A100, constants=c)
    sums(result)
    assert result.time_s == pytest.approx(3 * 2**30 / 2.039e12, rel=1e-9)
    with pytest.raises(UnsupportedOpError, match='mean "gelu"'):
        vector.vector_s("gelo", 1, 1, device=A100, constants=c)


@given(x=st.floats(0, 1e6), y=st.floats(0, 1e6), p=st.floats(1, 16))
def test_soft_max_lies_between_maximum_and_sum(x, y, p):
    assert max(x, y) * (1 - 1e-12) <= soft_max(x, y, p) <= (x + y) * (1 + 1e-12) + 1e-300


def test_hit_rate_is_half_at_the_usable_size():
    assert hit_rate(np.array([1e7]), 1e7, 6.0) == pytest.approx(0.5)
    assert hit_rate(np.array([1e7]), 0.0, 6.0) == 0


def test_clusters_read_a_tile_once_for_their_rows_and_columns():
    """A 128 x 256 tile over k = 64, by hand: 128 + 256 rows and columns of 2 B a CTA on A100; on H100 two CTAs share
    each. With one row of tiles nobody shares the columns."""

    def read(m, device):
        plan = gemm.gemm_plan(m, 4096, 64, device=device)
        at = np.flatnonzero((plan.tile_m == 128) & (plan.tile_n == 256) & (plan.split == 1))[0]
        return plan.l2_bytes[at]

    assert read(4096, A100) == 32 * 16 * (128 + 256) * 64 * 2
    assert read(4096, H100) == 32 * 16 * (64 + 128) * 64 * 2
    assert read(128, H100) == 16 * (64 + 256) * 64 * 2


def test_fills_and_epilogues_by_hand():
    """4096 x 4096 x 4096 in 128 x 256 tiles on A100: 512 CTAs on 108 SMs are 5 waves: 5 fills, 5 x 128 steps of 32, 5
    tiles to write. 132 SMs of H100 take 4: no fill, 4 x 64 steps of 64, one tile and 0.3 of three more. With k = 32,
    one step of a pipeline of four is a quarter of a fill."""
    for device, waves, fill, steps in ((A100, 5, 5, 5 * 128), (H100, 4, 0, 4 * 64)):
        plan = gemm.gemm_plan(4096, 4096, 4096, device=device)
        at = np.flatnonzero((plan.tile_m == 128) & (plan.tile_n == 256) & (plan.split == 1))[0]
        assert (plan.waves[at], plan.fill[at], plan.steps[at]) == (waves, fill, steps)
        found = gemm.gemm_time(plan, replace(constants_for(device, "none").gemm, epilogue_bytes_per_clock_sm=10.0))
        tiles = found.kernel["waves"] if device is A100 else 1 + 0.3 * (found.kernel["waves"] - 1)
        tile_s = found.kernel["tile_m"] * found.kernel["tile_n"] * 2 / (10 * device.clock_hz)
        assert found.terms_s["epilogue"] == pytest.approx(tiles * tile_s)
    short = gemm.gemm_plan(4096, 4096, 32, device=A100)
    at = np.flatnonzero((short.tile_m == 128) & (short.tile_n == 256) & (short.split == 1))[0]
    assert short.fill[at] == 5 / 4


def test_softmax_clocks_follow_from_the_data_sheet():
    """By hand: 1/16 + 6/64 clocks an element on A100, 1/16 + 6/128 on H100."""
    assert attention.softmax_clocks_per_element(A100) == pytest.approx(0.15625)
    assert attention.softmax_clocks_per_element(H100) == pytest.approx(0.109375)


def test_a_block_of_the_cache_costs_matrix_time():
    """By hand: 32 rows by 128 tokens by 128 elements, two products of 2 FLOP: 2.1 MFLOP at 312e12 / 108 FLOP/s; 216
    CTAs are two rounds."""
    c = replace(constants_for(A100, "none").decode, block_rows=32.0)
    one, two = (attention.attention_decode_s(216, n, 8, 1, 128, device=A100, constants=c) for n in (127, 255))
    block_s = 4 * 32 * 128 * 128 * 108 / 312e12
    assert two.terms_s["compute"] - one.terms_s["compute"] == pytest.approx(2 * block_s, rel=1e-9)


def test_results_have_the_bytes_that_the_network_stores():
    """A product alone returns its type, at least 16 bits; inside an int8 network its epilogue stores 8."""
    alone, inside = (gemm.gemm_plan(64, 96, 64, device=A100, dtype="bf16", output_bytes=b) for b in (None, 1.0))
    assert (alone.result_bytes[0], inside.result_bytes[0]) == (2 * 64 * 96, 64 * 96)


def test_prefill_reads_from_l2_what_its_producers_left_there():
    """1,024 tokens of 32 heads move 21 MB: out of reach of 6 MB of L2, not of 96 MB."""
    c = constants_for(A100).prefill
    small, large = (
        attention.attention_prefill_s(1, 1024, 0, 32, 8, 128, device=replace(A100, l2_bytes=x), constants=c).time_s
        for x in (6e6, 96e6)
    )
    assert large < small
    plan = attention.prefill_plan(1, 64, 8192, 32, 32, 128, device=replace(A100, l2_bytes=400e6))
    again, once = (attention.prefill_time(plan, c, past_in_l2=x).time_s for x in (True, False))
    assert once - again > 0.25 * 2 * 2 * 8192 * 32 * 128 / A100.dram_bytes_per_s


def test_an_sm_of_an_l40s_holds_one_attention_cta():
    """By hand, head dimension 128: 64 queries and 128 keys and values of 2 B are 80 KiB: two in A100's 164 KiB, one in
    100 KiB. Head dimension 256 takes 64 columns and 96 KiB."""
    x = attention.AttentionProblem.of(1, 512, 0, 8, 8, np.array([128, 256]))
    assert attention.prefill_tiles(x, A100).resident.tolist() == [2, 1]
    assert attention.prefill_tiles(x, replace(A100, smem_bytes_per_sm=100 * 1024)).resident.tolist() == [1, 1]
    assert attention.prefill_tiles(x, A100).columns.tolist() == [128, 64]


def test_l2_bandwidth_is_a_ceiling():
    """Warm weights cannot leave L2 faster than it reads: 8 MB at 0.5 TB/s take 16 us at least."""
    c = constants_for(A100).gemm
    slow = GpuDevice(**{n: getattr(A100, n) for n in A100.__dataclass_fields__} | {"l2_bytes_per_s": 5e11})
    assert gemm.gemm_s(16, 2048, 2048, device=slow, constants=c, weight_copies=1).time_s >= 16e-6
    assert gemm.gemm_s(16, 2048, 2048, device=A100, constants=c, weight_copies=1).time_s < 10e-6


def test_winograd_is_flagged_where_the_library_is_unknown():
    """fp32, windows of 3 and 5 at strides 1 and 2: only 3 at stride 1 could run Winograd. A chip that lists no
    Winograd has it flagged; in bf16 nothing is."""
    sizes = (8, 64, 64, 28, 28, np.array([3, 3, 5]))
    c = constants_for(A100)
    options = {"device": A100, "constants": c.conv, "gemm": c.gemm, "stride": np.array([1, 2, 1]), "padding": 1}
    assert list(conv.conv_s(*sizes, **options, dtype="fp32").flagged) == [True, False, False]
    assert not conv.conv_s(*sizes, **options, dtype="bf16").flagged.any()
