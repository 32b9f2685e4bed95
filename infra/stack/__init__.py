"""The stack: PostgreSQL, S3, MLflow, Prefect and workers, from `docker-compose.yml` with or without containers."""
