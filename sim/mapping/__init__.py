"""Mappings of einsums onto memories and arrays: map spaces, the evaluator, and the search for the best one."""

from sim.mapping.arrays import array_cycles

__all__ = ["array_cycles"]
