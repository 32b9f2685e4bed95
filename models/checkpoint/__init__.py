"""Checkpoints: the whole state of an unfinished training, from which it goes on to the same bytes.

    REMINT_CHECKPOINTS/STAGE-KEY/STEP-SHA256.safetensors

REMINT_CHECKPOINTS is a folder or s3://bucket/prefix. KEY is the digest of everything the stage depends on (parameters,
inputs, code, versions), so a checkpoint is never used for another training; SHA256 is the digest of the file, so a
damaged one is never used at all. Files appear whole, under a new name each. A finished stage removes its own.
"""
