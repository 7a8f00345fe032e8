"""The embedded default: a family of tiny models in a harmless made-up world."""
