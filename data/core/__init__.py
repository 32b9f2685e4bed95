"""What every stage uses: parameters, samples, shards, manifest, checkpoint store, partitions."""
