"""A language model in memory: loaded by name, asked prompts, and what it answers."""
