"""What happened, remembered in SQL: data, runs, stage executions, model versions, releases, and a chained journal."""
