"""Tables of silicon technology, each with its source and how far it is to be trusted.

Confidence: F1 primary source, F2 secondary source, D derived, M from memory. What is `estimated`
says why. Nodes are named by their marketing length in nm.
"""

from __future__ import annotations

from types import MappingProxyType

SOURCES = MappingProxyType(
    {
        "horowitz14": "Horowitz, Computing's Energy Problem, ISSCC 2014, Fig. 1.1.9 (45 nm, 0.9 V); F2",
        "tpuv4i_isca21": "Jouppi et al., Ten Lessons from Three Generations, ISCA 2021, Table 2 (45 nm and 7 nm); "
        "45 nm F2, 7 nm M",
        "stillmaker17": "Stillmaker and Baas, Scaling equations 180 nm to 7 nm, Integration 58 (2017); F2",
        "oconnor17": "O'Connor et al., Fine-Grained DRAM, MICRO 2017 (HBM2 about 3.9 pJ/bit); F2",
        "foundry": "TSMC density, bitcell and power claims at IEDM and ISSCC as collected by secondary notes; F2",
        "cset20": "Khan and Mann, AI Chips, CSET 2020, wafer price model; M, disputed at 5 nm",
        "yield_models": "Poisson, Murphy and negative binomial yield models, textbook forms; F2",
        "sakurai90": "Sakurai and Newton, alpha-power law MOSFET model, IEEE JSSC 25(2), 1990; exponent M",
        "eyeriss_jssc17": "Chen et al., Eyeriss, IEEE JSSC 52(1), 2017; F1",
        "samsung21": "Samsung, announcement of LPDDR5X, 2021-11-09: about 20 % less power than LPDDR5; F2",
        "micron24": "Micron, announcement of GDDR7, 2024-06-04: over 50 % better power efficiency than GDDR6; F2",
        "skhynix25": "SK hynix on HBM4, 2025: about 40 % better power efficiency than HBM3E; F2",
        "mem": "from memory; unverified",
    }
)

NODES_NM = (65.0, 45.0, 40.0, 32.0, 28.0, 22.0, 20.0, 16.0, 14.0, 12.0, 10.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0)


def nearest_nodes(node_nm: float) -> str:
    """What to say of a node that no table has."""
    low, high = sorted(sorted(NODES_NM, key=lambda known: abs(known - node_nm))[:2])
    known = ", ".join(f"{node:g}" for node in NODES_NM)
    return (
        f"{node_nm:g} nm is outside the scaling table: expected one of {known} nm; "
        f"the nearest are {low:g} and {high:g} nm"
    )


LOGIC_AREA = MappingProxyType(
    {
        65.0: 1.5, 45.0: 1.0, 40.0: 0.765, 32.0: 0.46, 28.0: 0.368, 22.0: 0.246, 20.0: 0.21, 16.0: 0.19, 14.0: 0.17,
        12.0: 0.17, 10.0: 0.10, 8.0: 0.0719, 7.0: 0.059, 6.0: 0.050, 5.0: 0.0389, 4.0: 0.0366, 3.0: 0.0243,
    }
)  # fmt: skip
"""Area of the same logic over that at 45 nm. stillmaker17 for 65, 45, 32, 20, 16, 14, 10 and 7 nm;
40, 28, 22 and 8 nm interpolated on log-log axes between them; 12 nm as 14 nm (estimated: the same
class); 6 nm N6 18 % denser than N7 (mem); 5 nm N7 to N5 91.2 to 138.2 MTr/mm2 (foundry); 4 nm N4
6 % shrink (mem); 3 nm N3E 1.6 times the density of N5 (mem)."""

BITCELL_UM2 = MappingProxyType(
    {
        65.0: 0.525, 45.0: 0.299, 40.0: 0.242, 32.0: 0.171, 28.0: 0.127, 22.0: 0.092, 20.0: 0.081, 16.0: 0.074,
        14.0: 0.064, 12.0: 0.064, 10.0: 0.042, 8.0: 0.034, 7.0: 0.027, 6.0: 0.027, 5.0: 0.021, 4.0: 0.021, 3.0: 0.0199,
    }
)  # fmt: skip
"""High-density 6T bitcell. 16, 7, 5 and 3 nm: foundry (TSMC 16FF+, N7, N5, N3B); the rest mem
(14 nm Samsung 14LPE; 12, 6 and 4 nm as their parent node; 8 nm between 10 and 7)."""

NOMINAL_VOLTAGE_V = MappingProxyType(
    {
        65.0: 1.0, 45.0: 0.9, 40.0: 0.9, 32.0: 0.9, 28.0: 0.9, 22.0: 0.85, 20.0: 0.9, 16.0: 0.8, 14.0: 0.8, 12.0: 0.8,
        10.0: 0.75, 8.0: 0.75, 7.0: 0.75, 6.0: 0.75, 5.0: 0.75, 4.0: 0.75, 3.0: 0.7,
    }
)  # fmt: skip
"""Supply at which the energies below hold and the maximum clock is reached (45 nm: horowitz14; 65 nm:
stillmaker17's 1.0 V; the rest mem)."""

LEAKAGE_W_PER_MM2 = MappingProxyType(
    {
        65.0: 0.003, 45.0: 0.02, 40.0: 0.02, 32.0: 0.03, 28.0: 0.03, 22.0: 0.03, 20.0: 0.04, 16.0: 0.02, 14.0: 0.02,
        12.0: 0.02, 10.0: 0.03, 8.0: 0.03, 7.0: 0.04, 6.0: 0.04, 5.0: 0.05, 4.0: 0.05, 3.0: 0.06,
    }
)  # fmt: skip
"""Static power per area at nominal supply. Estimated: TPU v1's 28 W idle over at most 331 mm2 at
28 nm bounds it by 0.085 with clocks and DRAM; FinFETs leak less per area, denser nodes more; 65 nm
is a low-power process."""

WAFER_USD = MappingProxyType(
    {
        65.0: 1937.0, 45.0: 2274.0, 40.0: 2274.0, 32.0: 2891.0, 28.0: 2891.0, 22.0: 2891.0, 20.0: 3677.0,
        16.0: 3984.0, 14.0: 3984.0, 12.0: 3984.0, 10.0: 5992.0, 8.0: 5992.0, 7.0: 9346.0, 6.0: 9346.0,
        5.0: 16988.0, 4.0: 16988.0, 3.0: 20000.0,
    }
)  # fmt: skip
"""Price of a processed 300 mm wafer: cset20; nodes between take the class they belong to; 3 nm
18,000 to 22,000 quoted by trade press (estimated: the middle)."""
WAFER_SOURCES = "Khan and Mann, AI Chips, CSET 2020; unverified"
WAFER_SOURCE = MappingProxyType(
    {
        5.0: f"{WAFER_SOURCES}, disputed at 5 nm",
        4.0: f"{WAFER_SOURCES}, disputed at 5 nm",
        3.0: "trade press; estimated",
    }
)
"""Where those prices come from, as a reader is told: by node what is not `WAFER_SOURCES`."""

ENERGY_45_PJ = MappingProxyType(
    {
        "int8 mult": 0.2, "int32 add": 0.1, "int32 mult": 3.1, "fp16 add": 0.4, "fp16 mult": 1.1, "fp32 add": 0.9,
        "fp32 mult": 3.7, "bf16 mult": 0.68, "bf16 add": 0.275,
    }
)  # fmt: skip
"""Energy per operation at 45 nm, 0.9 V: horowitz14; bf16 scaled back from 7 nm like fp16 (D)."""

ENERGY_7_PJ = MappingProxyType(
    {
        "int8 mult": 0.07, "int32 add": 0.03, "int32 mult": 1.48, "fp16 add": 0.16, "fp16 mult": 0.34,
        "fp32 add": 0.38, "fp32 mult": 1.31, "bf16 mult": 0.21, "bf16 add": 0.11,
    }
)  # fmt: skip
"""The same at 7 nm: tpuv4i_isca21 (M)."""

ENERGY_BEYOND = MappingProxyType({65.0: 1.58, 6.0: 0.92, 5.0: 0.70, 4.0: 0.66, 3.0: 0.47})
"""Energy per operation of nodes outside 45 to 7 nm, over 45 nm for 65 (stillmaker17 at 1.0 V, D) and
over 7 nm for the rest (foundry: N5 -30 %, N3E a further -30 to -35 %; 6 and 4 nm mem)."""

AREA_45_UM2 = MappingProxyType(
    {
        "int8 mult": 282.0, "int32 add": 137.0, "int32 mult": 3495.0, "fp16 add": 1360.0, "fp16 mult": 1640.0,
        "fp32 add": 4184.0, "fp32 mult": 7700.0, "bf16 mult": 867.0, "bf16 add": 1360.0,
    }
)  # fmt: skip
"""Area per operator at 45 nm: horowitz14; bf16 multiplier by its 8-bit significand, (8/11)^2 of fp16 (D)."""

SRAM_45 = (10.0, 0.5)
SRAM_7 = (7.5, 0.1286)
"""(pJ of a 64-bit access at 8 KiB, exponent of capacity): horowitz14 at 45 nm is 10 sqrt(C / 8 KiB)
within 13 %; tpuv4i_isca21 at 7 nm runs from 7.5 pJ at 8 KiB to 14 pJ at 1 MiB (M)."""

DRAM_PJ_PER_BIT = MappingProxyType(
    {
        "hbm2": 3.9, "hbm2e": 3.9, "hbm3": 3.25, "hbm3e": 2.75, "gddr5": 14.0, "gddr6": 6.5, "gddr6x": 7.25,
        "gddr7": 4.3, "ddr3": 20.3, "ddr4": 20.3, "ddr5": 15.0, "lpddr3": 12.0, "lpddr4": 8.0, "lpddr4x": 6.0,
        "lpddr5": 5.0, "lpddr5x": 4.0, "hbm4": 2.0, "dram": 20.3,
    }
)  # fmt: skip
"""Energy per bit moved, core and interface. hbm2 oconnor17; hbm3 and hbm3e middle of secondary
ranges; gddr6 (5.5 to 7.5), ddr3 and ddr4 tpuv4i_isca21 (M); lpddr4 and lpddr5 mem; hbm2e as hbm2,
gddr5, gddr6x, ddr5, lpddr3, lpddr4x mem; `dram` stands for an unnamed DDR3 or DDR4. Estimated from makers' claims
over the kind before: lpddr5x a fifth less than lpddr5 (samsung21), hbm4 over hbm3e / 1.4 (skhynix25), gddr7 over
gddr6 / 1.5 (micron24)."""

DRAM_STANDBY_W_PER_GIB = MappingProxyType(
    {
        kind: (0.1 if kind.startswith(("hbm", "gddr")) else 0.015 if kind.startswith("lpddr") else 0.05)
        for kind in DRAM_PJ_PER_BIT
    }
)
"""Refresh and standby. Estimated from data-sheet idle currents: about 50 mW per GiB of DDR, a third
of that for low-power parts, twice for stacked and graphics memory."""

DRAM_PHY_MM2_PER_GB_S = MappingProxyType(
    {
        kind: (
            0.045
            if kind.startswith("hbm")
            else 0.10
            if kind.startswith("gddr")
            else 0.15
            if kind.startswith("lpddr")
            else 0.3
        )
        for kind in DRAM_PJ_PER_BIT
    }
)
"""Die area of the controller and PHY per GB/s. Estimated from die photographs: an HBM2 stack of
307 GB/s takes about 14 mm2, a 128-bit LPDDR4 interface of 68 GB/s about 10 mm2."""

SRAM_KINDS = frozenset({"sram", "cache", "register"})
"""Kinds of on-chip memory."""

# Constants of the area and power model.
CELL_OVERHEAD = 2.0
"""Area of an array cell over its multiplier, adder and registers (control, wires, utilisation). Derived:
1.6 in Eyeriss (MACs 7.4 % of 12.25 mm2 over 168 cells, eyeriss_jssc17) and 2.0 in TPU v4i (MXU 11 % of
400 mm2, four of 128 x 128); the larger, since Eyeriss counts its MACs alone."""
SHARED_MODE = 0.1
"""Extra area for each further precision of a cell, as a share of its own MAC: modes share the
multiplier. Estimated."""
FLIP_FLOP_UM2_45 = 6.5
"""Area of a flip-flop at 45 nm. Estimated: 4.5 um2 in an open 45 nm cell library (mem), placed at 70 %."""
CLOCK_FJ_45 = 4.0
"""Energy of clocking one flip-flop for one cycle at 45 nm. Estimated: about 5 fF at 0.9 V, its clock pin
and inner inverters (2 to 3 fF) and as much again for its share of the tree; no clock gating."""
ALIGNED_ADD_UM2_45 = 440.0
"""Adding a floating product in an adder tree: 32-bit integer adder (137 um2, horowitz14) and an alignment
shifter of 160 two-way multiplexers (1.9 um2 each, mem)."""
CONTROL_MM2_45 = 1.2
"""Sequencer, DMA engines and registers of a unit, at 45 nm. Derived from one point, NVDLA with 32 MACs
(primer: 0.85 mm2 at 28 nm), of which its modelled buffers and cells take 0.4 mm2; its other six sizes check it."""
SPARSE_MUX = 0.1
"""Extra area of a cell per unit of speed-up by N:M weights (operand multiplexers). Estimated."""
SRAM_ARRAY_EFFICIENCY = 0.4
"""Share of a buffer's area that is bitcells. Estimated: bare macros reach 0.67 to 0.70; floor plans
of TPU v1 (unified buffer) and TPU v4i (CMEM) imply about 0.27 with routing; the middle is used."""
PORT_UM2_PER_BIT_45 = 105.0
"""Periphery and wiring per bit of access width, 45 nm. Estimated from a 4 KiB macro with a 128-bit
port, of whose area three tenths are periphery, twice for the way to the array."""
LINK_MM2_PER_GB_S = 0.05
"""SerDes and controller of chip-to-chip links. Estimated: a PCIe 4 x16 block (64 GB/s) takes 3 mm2."""
LINK_PJ_PER_BIT = 5.0
"""Board-level SerDes. mem; in-package links are 0.25 to 1.3 (UCIe, NVLink-C2C; F2)."""
VT_SHARE = 0.35
"""Threshold over nominal supply in the alpha-power law. Estimated for FinFET and late planar nodes."""
ALPHA = 1.3
"""Velocity-saturation exponent, sakurai90."""
FLOOR_SHARE = 0.6
"""Lowest supply over nominal: below it, a slower clock saves no more voltage. Estimated (SRAM limits)."""
OVERDRIVE_SHARE = 1.3
"""Highest supply over nominal. Estimated: foundries rate logic 10 to 20 % above it, and the nominal ones here are to
0.1 V; Eyeriss runs up to 1.17 of its 1 V (eyeriss_jssc17; M)."""
RETICLE_MM2 = 858.0
"""Largest die of one exposure, 26 x 33 mm (F2)."""
WAFER_MM = 300.0
DEFECTS_PER_CM2 = 0.1
"""Defect density of mature nodes (M)."""
CLUSTER_ALPHA = 3.0
"""Clustering of the negative binomial model; 0.5 to 3, 3 is common (M)."""

PRIMITIVE_PARTS = MappingProxyType(
    {
        "add": {"fp32 add": 1}, "mul": {"fp32 mult": 1}, "fma": {"fp32 mult": 1, "fp32 add": 1},
        "compare": {"int32 add": 1}, "logic": {"int32 add": 1}, "convert": {"fp16 add": 1}, "shuffle": {"int32 add": 1},
        **{name: {"fp32 mult": 2, "fp32 add": 2} for name in
           ("exp", "log", "tanh", "erf", "sin", "rsqrt", "reciprocal")},
    }
)  # fmt: skip
"""What a vector primitive is made of. Estimated: transcendentals are a table and a quadratic."""
