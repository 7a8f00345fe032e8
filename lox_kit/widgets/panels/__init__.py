"""The five panels: each has its state, its view, and what its table and its code say."""
