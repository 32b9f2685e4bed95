"""Pictures of one's own, whatever form they are given in, as the same shards and manifest that the renderer writes."""
