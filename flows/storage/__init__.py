"""One object store for data, outcomes and production: a folder or S3 under the same rules."""
