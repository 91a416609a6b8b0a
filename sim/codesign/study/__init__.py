"""The Optuna side of a search: samplers, storages, leases, workers. The only importer of optuna."""
