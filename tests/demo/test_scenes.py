"""Scenes are what they say: captions name only what is there, colours and shapes are drawn as named."""

import math
import re

import numpy as np
import pytest

from curate.demo.drawing import draw
from curate.demo.samples import caption
from curate.demo.scenes import Item, Scene, compose
from curate.demo.words import BACKGROUNDS, COLOURS, SHAPES

CONCEPTS = {*SHAPES, *COLOURS, *BACKGROUNDS}


def rng(seed):
    return np.random.Generator(np.random.PCG64(seed))


def scenes(count):
    return [compose(rng(seed), 300, 240) for seed in range(count)]


def alone(shape, colour="red", x=0.5, y=0.5, ground="white"):
    return Scene(300, 300, "gradient", ground, (Item(shape, colour, "", 0.25, x, y, 0.0),))


def named(text):
    return set(re.findall(r"[a-z]+", text.lower().replace("grey", "gray"))) & CONCEPTS


def test_captions_come_in_many_styles_and_name_what_is_there():
    links, found = {"to the left of": (1, 0), "to the right of": (-1, 0), "above": (0, 1), "below": (0, -1)}, set()
    for seed, scene in enumerate(scenes(800)):
        text = caption(scene, rng(seed))
        assert scene.items[0].shape in named(text) and named(text) <= scene.concepts, (scene, text)
        for link, (x, y) in links.items():
            if link in text.lower():
                one, other = scene.items[:2]
                dx, dy = (other.x - one.x) * scene.width, (other.y - one.y) * scene.height
                assert x * dx + y * dy == max(abs(dx), abs(dy)), "the direction in which they are farthest"
                found.add(link)
    assert len(found) == 4
    scene = compose(rng(5), 300, 240)
    assert len({caption(scene, rng(seed)) for seed in range(300)}) > 150


def test_shapes_do_not_touch_one_another_or_leave_the_picture():
    crowded = 0
    for scene in scenes(300):
        side = min(scene.width, scene.height)
        for item in scene.items:
            assert item.radius * side <= item.x * scene.width <= scene.width - item.radius * side
            assert item.radius * side <= item.y * scene.height <= scene.height - item.radius * side
        for i, a in enumerate(scene.items):
            for b in scene.items[:i]:
                apart = math.hypot((a.x - b.x) * scene.width, (a.y - b.y) * scene.height)
                assert apart > (a.radius + b.radius) * side
                assert (a.shape, a.colour) != (b.shape, b.colour)
                crowded += 1
    assert crowded > 100


@pytest.mark.parametrize("colour", COLOURS)
def test_a_shape_has_its_colour_and_its_ground_another(colour):
    ground = "blue" if colour != "blue" else "yellow"
    picture = np.asarray(draw(alone("square", colour, ground=ground), rng(1)), np.float64)

    def nearest(patch):
        return min(COLOURS, key=lambda name: math.dist(COLOURS[name], patch.mean((0, 1))))

    assert nearest(picture[140:160, 140:160]) == colour
    assert nearest(picture[:20, :20]) != colour


@pytest.mark.parametrize("size", [(20, 20), (600, 60), (60, 480), (63, 21), (300, 300)])
def test_all_sizes_are_drawn(size):
    for seed in range(12):
        state = rng(seed)
        picture = draw(compose(state, *size), state)
        assert (picture.size, picture.mode) == (size, "RGB")
        assert min(size) < 300 or np.asarray(picture.convert("L"), np.float64).std() > 8, "it is not flat"
