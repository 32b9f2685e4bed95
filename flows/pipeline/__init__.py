"""The graph of dvc.yaml and what a run of it would do: graph, plan, lock file, parameters, DVC's store, worktree."""
