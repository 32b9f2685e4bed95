"""One stage as a process: confined, measured, ended in time."""
