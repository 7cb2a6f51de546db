"""Mirrored images and painted text, by a small CLIP: the scores are those of images that are changed by hand."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from curate.signals.text_masked import paint_over_text
from tests import kit
from tests.kit.clips import write_model

pytest.importorskip("onnxruntime")


def page(text="SUMMER SALE"):
    """A line of black letters on a board of one color, in a picture of another."""
    image = Image.new("RGB", (480, 320), (40, 120, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 100, 440, 220), fill=(240, 230, 90))
    draw.text((80, 130), text, font=ImageFont.load_default(48), fill="black")
    return image


def test_text_gets_the_color_around_it():
    painted = np.asarray(paint_over_text(page())).astype(int)
    board = painted[100:220, 40:440]
    assert np.abs(board - [240, 230, 90]).max() < 40  # no letter is left
    assert (painted[:90] == [40, 120, 200]).all()
    plain = Image.new("RGB", (100, 80), "red")
    assert paint_over_text(plain) is plain


def test_an_image_of_text_alone_a_moving_one_and_other_modes():
    """What no line covers is the color around; of an animation the first frame is seen."""
    wide = Image.fromarray(np.asarray(page().convert("L")).astype(np.uint16) * 256)
    for other in (wide, *map(page().convert, ("L", "RGBA", "P", "CMYK"))):
        assert paint_over_text(other).size == (480, 320)
    image = Image.new("RGB", (400, 130), "white")
    ImageDraw.Draw(image).text((-5, -20), "WWWWWWW", font=ImageFont.load_default(120), fill="black")
    assert np.asarray(paint_over_text(image)).mean() > 240
    page("FIRST").save(data := io.BytesIO(), "GIF", save_all=True, append_images=[page("SECOND")])
    moving = paint_over_text(Image.open(data))
    assert np.abs(np.asarray(moving).astype(int)[100:220, 40:440] - [240, 230, 90]).max() < 60


@pytest.mark.thorough
def test_scores_are_those_of_changed_images(tmp_path):
    """Each score equals `clip_score` of a pool whose images were changed before; without text nothing is changed."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(3)]
    pictures = [page("A BLUE SKY"), page(), *noise]
    clip = {"model": write_model(tmp_path / "clip")}
    looks = {"mirrored": {"mirror_score": {}}, "text_masked": {"t_mars": {}}}
    scores = measure(tmp_path / "as_is", pictures, {"clip": clip, **looks})
    for column, change in (("mirror_score", ImageOps.mirror), ("t_mars", paint_over_text)):
        changed = measure(tmp_path / column, [change(picture) for picture in pictures], {"clip": clip})
        assert np.abs(scores[column] - changed["clip_score"]).max() < 1e-5
    assert ((scores["t_mars"] == scores["clip_score"]) == [False, False, True, True, True]).all()


def measure(folder, pictures, signals):
    """The scores of pictures, each by the same caption in all pools."""
    folder.mkdir()
    images = {str(i): kit.encode(picture, "PNG") for i, picture in enumerate(pictures)}
    samples = [kit.sample(key, f"a caption of picture {key}", image=image) for key, image in images.items()]
    scores = kit.curate(folder, samples, measure=signals).table("scores")
    return {name: scores[name].to_numpy() for name in scores.column_names[3:] if "score" in name or name == "t_mars"}
