"""What our GPU kernels cost a warp that runs alone, read from the code that the compilers make of them for Hopper.

    PYTHONPATH=. python benchmarks/kernel_loops.py

Needs no GPU: Triton compiles for sm_90 on any machine (and brings nvdisasm), nvcc too (from PATH or CUDA_HOME; without
it the detection kernel is left out). Every instruction of compiled code says how many cycles the scheduler waits after
it and which of six barriers it waits for (Jia et al. 2018, arXiv 1804.06826, section 2.1: 4 bits of stall, 1 of yield,
3 and 3 of barriers to set, 6 of barriers to wait for); with the latency of what sets a barrier, that is the time of a
loop's body. Prints the numbers that `sim.baseline.kernels.cost` states: instructions, and cycles of one pass with loads
that hit L1, and with loads that come from memory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.baseline.kernels.cost import L1_CYCLES, MEMORY_CYCLES

LATENCY = {"LDS": 29, "LDSM": 29, "LDC": 29, "S2R": 29, "S2UR": 29, "MUFU": 20, "FCHK": 20, "I2F": 20, "BAR": 20}
"""Cycles until a result is there, of instructions without a fixed one; shared memory: Luo et al. 2024, arXiv
2402.13499 (from memory: unverified), the others estimated."""
RELEASE = 10
"""Cycles until an instruction has read its operands; estimated."""
UNKNOWN = 20

CODE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\*\s*0x[0-9a-f]{16}")
CONTROL = re.compile(r"\s*/\*\s*0x([0-9a-f]{16})\s*\*/")
PREDICATE = re.compile(r"^@!?U?P\w+\s+")


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    """As "LDG", without its suffixes."""
    text: str
    stall: int
    sets: tuple[int, int]
    """Barriers that its result and its operands release; 7: none."""
    waits: int
    """One bit a barrier."""


def instructions(listing: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of one function as nvdisasm prints them with their encoding, and the place of each label."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    text = ""
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = len(found)
        elif code := CODE.match(line):
            text = code.group(2)
        elif text and (control := CONTROL.match(line)):
            bits = int(control.group(1), 16) >> 41
            name = PREDICATE.sub("", text).split()[0].split(".")[0]
            found.append(Instruction(name, text, bits & 15, (bits >> 5 & 7, bits >> 8 & 7), bits >> 11 & 63))
            text = ""
    return found, labels


def loops(listing: str) -> Iterator[list[Instruction]]:
    """Bodies of loops: what lies between a label and a branch back to it."""
    code, labels = instructions(listing)
    for end, one in enumerate(code):
        target = re.search(r"\.L_x_\d+", one.text) if one.name == "BRA" else None
        if target and labels.get(target.group(), end + 1) <= end:
            yield code[labels[target.group()] : end + 1]


def cycles(body: Sequence[Instruction], load_cycles: float, passes: int = 4) -> float:
    """Cycles of one pass of a warp alone, in the order of the code, branches not taken, when the loop has settled."""
    latency = {**LATENCY, "LDG": load_cycles}
    now, ready, begun = 0.0, [0.0] * 8, [0.0]
    for _ in range(passes):
        for one in body:
            now = max([now, *(ready[k] for k in range(6) if one.waits >> k & 1)])
            now += LATENCY["BAR"] if one.name == "BAR" else 0
            for barrier, after in zip(one.sets, (latency.get(one.name, UNKNOWN), RELEASE), strict=True):
                ready[barrier] = max(ready[barrier], now + after)
            now += max(1, one.stall)
        begun.append(now)
    return begun[-1] - begun[-2]


def disassembled(cubin: bytes) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([str(tool), "-hex", "-c", file.name], capture_output=True, text=True, check=True)
    return done.stdout


def compiled(function: object, signature: dict[str, str], constants: dict[str, int]) -> tuple[str, int]:
    """(listing, bytes of shared memory) of a Triton kernel as the wrappers launch it: 4 warps, 3 stages, sizes and
    addresses that are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attributes = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind != "constexpr"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 3})
    return disassembled(built.asm["cubin"]), built.metadata.shared


def triton_kernels() -> Iterator[tuple[str, str, int]]:
    """(name, listing, shared bytes) by rows of the output tile."""
    from sim.baseline.kernels._triton import block_sparse_gemm_kernel, int4_gemm_kernel
    from sim.baseline.ops import BLOCK, INT4_GROUP

    sizes = {"m": "i32", "n": "i32", "k": "i32"}
    int4 = {"x_ptr": "*fp16", "packed_ptr": "*u8", "scale_ptr": "*fp16", "zero_ptr": "*fp16", "out_ptr": "*fp16"}
    int4 |= sizes | dict.fromkeys(("GROUP", "BLOCK_M", "BLOCK_N"), "constexpr")
    for rows in (16, 32, 64):
        constants = {"GROUP": INT4_GROUP, "BLOCK_M": rows, "BLOCK_N": 64}
        yield f"gemm_int4, {rows} rows", *compiled(int4_gemm_kernel, int4, constants)
    sparse = {"x_ptr": "*bf16", "values_ptr": "*bf16", "columns_ptr": "*i32", "out_ptr": "*bf16"}
    sparse |= {**sizes, "kept": "i32", "BLOCK": "constexpr", "BLOCK_M": "constexpr"}
    for rows in (16, 64, 128):
        constants = {"BLOCK": BLOCK, "BLOCK_M": rows}
        yield f"gemm_block_sparse, {rows} rows", *compiled(block_sparse_gemm_kernel, sparse, constants)


def detection_loops() -> Iterator[tuple[str, list[Instruction]]]:
    """The three loops of the suppression kernel that take time, told by what they hold."""
    from sim.baseline.kernels.detection import SOURCE

    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if nvcc is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "detection.cubin"
        subprocess.run([nvcc, "-std=c++17", "-O3", "-cubin", "-arch=sm_90", str(SOURCE), "-o", str(cubin)], check=True)
        listing = disassembled(cubin.read_bytes())
    parts = re.split(r"^\.text\.", listing, flags=re.MULTILINE)
    bodies = list(loops(next(part for part in parts if "suppress_kernel" in part.splitlines()[0])))
    names = [[one.name for one in body] for body in bodies]
    waits = [body for body, name in zip(bodies, names, strict=True) if "BAR" in name]
    yield "stage of the sort", min(waits, key=len)
    yield "best class, 16 classes", max(bodies, key=lambda body: sum(x.name == "LDG" for x in body) / len(body))
    yield "box that is kept", next(b for b in waits if any(x.name == "MUFU" for x in b))
    yield "comparison in it", min((b for b in bodies if any(x.name == "MUFU" for x in b)), key=len)


def main() -> int:
    try:
        for name, listing, shared in triton_kernels():
            report(f"{name}, {shared} B shared", max(loops(listing), key=len))
    except ImportError as error:
        print(f"{error}: pip install triton (it compiles without a GPU)", file=sys.stderr)
        return 2
    for name, body in detection_loops():
        report(f"detection_postprocess, {name}", body)
    return 0


def report(name: str, body: Sequence[Instruction]) -> None:
    near, far = (cycles(body, load) for load in (L1_CYCLES, MEMORY_CYCLES))
    print(f"{name}: {len(body)} instructions, {near:.0f} cycles a pass from L1, {far:.0f} from memory")


if __name__ == "__main__":
    sys.exit(main())
