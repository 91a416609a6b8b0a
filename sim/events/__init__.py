"""The event-driven reading of a Schedule. simpy is used here alone.

The way in           simulate (one workload alone), run (streams on one machine), experiment (replications, scenarios)
A program            program (schedules ready to run), work (a group as phases), order, summary (the network in a few)
The machine          machine (unit instances, ports), channels and fluid (shared ports, max-min fair), kernel (steady
                     loops folded), policies (who is next), ticks (time)
Scenarios            scenario (the file), arrivals, limits (highest rate within deadlines)
Language models      serving, serving_scenario, serving_result
What was found       result, timeline, statistics, stated (how it was made), progress
"""
