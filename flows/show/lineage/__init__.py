"""Lineage: where a model comes from, and what a data version, a photograph or a commit went into.

down       a version -> Lineage: data, code, parameters, parents, environment
up         data, photograph, commit -> Trace: every version that contains it, directly or through a parent
words      both as text
picture    Lineage -> SVG
"""
