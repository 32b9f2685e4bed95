"""Path-traced scenes of ten classes with exact depth: each a pure function of (seed, index)."""
