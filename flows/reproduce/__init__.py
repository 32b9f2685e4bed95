"""Make a model again from its tag and prove that it is the same: target, remake, compare, record."""
