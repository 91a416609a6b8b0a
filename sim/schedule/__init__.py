"""From a graph and chips to the one Schedule that `analytical` and `events` read. Stands on the mapper and the costs.

The way in           network (every group costed, arrays over designs), then build, which makes one chip's `plan`
The graph as it runs prepare (precision, epilogues), order, given (mappings and latencies of the user's)
Questions            asking (what the mapper is asked), again (what a machine much like the last one still has to ask)
Groups by unit       groups and streams (mapped units), gpu, gpu_kernels and gpu_eager, cpu, links (collectives), host
  what libraries do  shapes (einsums as products), cpu_work, eager_work
Memory               residency (homes of tensors), room (whether they fit), loads (weights that stay), choice (kept or
                     not, by evaluation), peaks (the most that each memory holds)
Fusion               fusion, slicings (ways to cut a group), slices (their cost)
Time                 makespan (who waits for whom), stages (of a pipeline of chips), confidence (calibration and
                     interval)
"""
