"""Two releases of a family side by side.

releases  two pointers and their bundles -> Comparison: everything below in one value
code      what git knows: parameters and code between the two runs
pictures  the figures of both evaluations, from DVC's cache or remote
text      a comparison for a terminal
page      a comparison as a self-contained HTML page
"""
