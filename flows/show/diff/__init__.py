"""Two releases of a family side by side.

releases    two pointers and their bundles, or a run's -> Comparison: everything below in one value
commits     what git and DVC know of the two runs: parameters, code and figures
comparison  the values, and their text
"""
