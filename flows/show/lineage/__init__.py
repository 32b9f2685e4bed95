"""Where a model comes from, and what a data version, a photograph or a commit went into.

reference  MODEL[@ALIAS|@VERSION] -> a version of the catalogue
code       what git holds of a run: its tag, its environment, the parameters of each stage
down       a version -> Lineage: data, code, parameters, parents, environment
up         data, photograph, commit -> Trace: every version that contains it, directly or through a parent
tree       both as text
picture    Lineage -> SVG
page       Lineage -> a self-contained HTML page
"""
