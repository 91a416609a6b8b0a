"""Results as tables, figures and pages. Reads results and computes none; matplotlib is used here alone.

The way in           figures (`sim.plot`), tables, report (one HTML file), perfetto (a timeline for other viewers)
Data steps           rows, points (of a roofline), held_out, scenarios, given (arguments, checked)
Figures              charts, timeline, search, parallel, compression, scaling
  their parts        labels, palette, unit_axis, objectives
Tables               comparisons, checks, inventory, search_tables, simulation; fitted (to the terminal)
"""
