"""The `lox` command: one verb a function."""
