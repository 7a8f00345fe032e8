"""What is in a page that a panel was written as, read as its script reads it."""

import json
import re
from pathlib import Path


class Page:
    """The recorded data of a page."""

    def __init__(self, file):
        self.text = Path(file).read_text(encoding="utf-8")
        (data,) = re.findall('id="data">(.*?)</script>', self.text, re.S)
        self.data = json.loads(data)
        self.pool = self.data["pool"]

    def values(self, name):
        """Return what can be chosen on an axis."""
        return next(axis["values"] for axis in self.data["axes"] if axis["name"] == name)

    def shown(self, i):
        """Return figure and HTML of the i-th setting."""
        traces, layout, *parts = self.data["views"][i]
        spec = {"data": [self._fields(t) for t in traces], "layout": self._fields(layout)}
        return spec, ["".join(self.pool[n] for n in cells) for cells in parts]

    def _fields(self, place):
        return {name: self.pool[n] for name, n in self.pool[place].items()}
