"""LoX itself: the safety subspace of a pair, and the edit as dial, checkpoint and adapter."""
