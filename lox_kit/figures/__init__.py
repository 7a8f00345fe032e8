"""Paper figures with matplotlib: plain data in, figure out."""
