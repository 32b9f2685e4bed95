"""What every training uses: stage, training loop, optimisers, checkpoints, ranks, saved weights."""
