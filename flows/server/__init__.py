"""Prefect's and MLflow's servers: the one that a variable names, or one of this machine's own, and their pages."""
