"""The Optuna side of a search. The only importer of optuna.

The way in           run (a study to its end, in this process or by workers), trial (one: ask, sweep, tell)
What it rests on     samplers, storages, leases (of trials whose worker died)
Read back            read (a study as a `Found`), spent (where the time went)
"""
