"""05: the answers to its exercises, and whether what it says to notice is there."""

import math


def cliff(name, end):
    """Return how far a model is from the cliff on the way of its own attack."""
    start = family.models[name]
    return cliff_distance(scan(start, [between(start, end)], asr, axis, store=store)).value


def length(point):
    """Return how far a model is from the aligned one."""
    return math.hypot(*point.at, point.distance)


points = plane.points
answer("Answer: length of the sums' way from aligned", length(points["attacked"]), 4.31)
answer("Answer: cliff of aligned, before half of it", cliff("aligned", ends["aligned"]), 1.75)
answer("Answer: cliff of LoX, beyond its end", cliff("LoX", ends["LoX"]), 6.25)
answer("Notice: attacked, off the plane", points["attacked"].distance, 0.38)
for name, value in (("aligned", 0.97), ("LoX", 1)):
    around = scan_visage(family.models[name], asr, n_directions=2, cells=11, store=store)
    answer(f"Notice: VISAGE of {name}", visage(around).value, value)

runs_2 = attack_both(family, "forbidden", store)
for (name, found), value in zip(runs_2.items(), (0.75, 1.75), strict=True):
    answer(f"1: cliff of {name}, forbidden", cliff(name, found.load()), value)
there = Plane.from_models(aligned, family.to_lox, *(found.folder for found in runs_2.values()))
point = there.points["attacked"]
answer("2: off the plane, as a share of the way", point.distance / length(point), 0.29)
through = Plane.through(aligned, family.to_lox, attacked)
answer("2: off the plane through it", through.points["attacked"].distance, 0)
