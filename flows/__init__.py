"""Layer 3: order, record, release, reproduce; the command line."""
