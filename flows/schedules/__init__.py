"""Runs that nobody asks for by hand: by schedule, because photographs arrived, because production drifts."""
