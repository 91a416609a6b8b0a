"""Mappings of einsums onto memories and arrays: what one costs, and which is the best. Knows chips and einsums, and no
networks.

The way in           api. Everything broadcasts over designs, and a search answers many questions in step.

What is mapped       problem (an einsum as M, N, K and B), machine (memories, ports and array as numbers)
A mapping            mapping (loops and stores), nest (as borders, checked), files (of a whole network)
What it costs        arrays (cycles of a fold), array_job (a tile on the array), evaluate (exact, the double-buffer
                     recurrence), steps (what evaluate hands around)
One border           mapper
  candidates         search (spaces and choices), dims (tiles of a class of ranks)
  bounds             terms, parts and bound (of a candidate), blocks (of many at once), scan (in single precision)
  the search         race runs each heat; scout says which blocks to look into, settle has the exact tables; rivals
                     and entries are what they share; narrow leaves out parts of large spaces
Several borders      nested: all chains where they are few, else beam (by fluid, a quick cost), then refine (exact);
                     near: where a beam starts that has a mapping at hand
Uneven mappings      uneven, uneven_bound
The answer           winners
"""

from sim.mapping.arrays import array_cycles

__all__ = ["array_cycles"]
