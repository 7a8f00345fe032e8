"""Trajectories: checkpoints on a plane, and the share of their way that lies in it."""

import numpy as np
import pytest
from two_numbers import two_numbers

from lox_kit.landscape.directions import lox_direction
from lox_kit.landscape.plane import Line, Plane, project


def test_a_line_explains_the_steps_along_it():
    line = Line.along(two_numbers(0, 0), two_numbers(5, 0))
    ways = [two_numbers(0, 0), two_numbers(3, 4), two_numbers(4, 4)]
    found = project(line, two_numbers(0, 0), ways, "a walk")
    assert found.name == "a walk"
    np.testing.assert_allclose(found.at, [(0,), (3,), (4,)])
    np.testing.assert_allclose(found.distances, [0, 4, 4])
    assert found.length == pytest.approx(5 + 1)
    assert found.explained == pytest.approx((3 + 1) / (5 + 1))
    assert found.to_dict()["explained"] == found.explained


def test_checkpoints_on_disk_are_projected_as_the_plane_locates_them(pair, subspace):
    plane = Plane.through(pair.aligned, lox_direction(subspace, 3), pair.base)
    found = project(plane, pair.aligned, [pair.aligned, pair.base])
    np.testing.assert_allclose(found.at, [(0, 0), plane.points["attacked"].at], atol=1e-9)
    assert found.explained == pytest.approx(1)


def test_what_cannot_be_projected_is_refused(pair, make_pair, subspace):
    plane = Plane.through(pair.aligned, lox_direction(subspace, 3), pair.base)
    with pytest.raises(ValueError, match="a path needs at least two"):
        project(plane, pair.aligned, [pair.base])
    with pytest.raises(ValueError, match="is not the origin of this plane"):
        project(plane, pair.base, [pair.base, pair.aligned])
    other = make_pair(num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"layers\.1.*no such tensor"):
        project(plane, pair.aligned, [pair.aligned, other.aligned])
    raw = Plane.random(pair.aligned)
    with pytest.raises(ValueError, match="axes here are not distances"):
        project(raw, pair.aligned, [pair.aligned, pair.base])
