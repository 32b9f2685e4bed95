"""Layer 3: order, record, release, reproduce; the command line. Imports `models` and `data`; nobody imports it."""
