"""Warnings about rules on sizes if img2dataset made the images square, as it does by default."""

import io
import tarfile

import pytest
from PIL import Image, ImageOps

from tests.cli.shared import changes, flat
from tests.kit import Sample, encode, write_tars

pytestmark = pytest.mark.thorough

COLUMNS, SIDE = "columns: {original_width: int, original_height: int}", "least(original_width, original_height) >= 200"
ASPECT = "greatest(original_width, original_height) <= 3 * least(original_width, original_height)"


@pytest.fixture(scope="module")
def recipe(shared, tmp_path_factory):
    """Write a recipe for photographs on white squares, with img2dataset's JSON."""
    folder = tmp_path_factory.mktemp("sizes")
    samples = []
    with tarfile.open(shared / "photos.tar") as tar:
        for name in tar.getnames()[:90:3]:
            file = tar.extractfile(name)
            assert file is not None
            image = Image.open(io.BytesIO(file.read()))
            square = encode(ImageOps.pad(image, (256, 256), color="white"))
            sides = {"width": 256, "height": 256, "original_width": image.width, "original_height": image.height}
            key = name.removesuffix(".jpg")
            samples.append(Sample(key, square, f"a photo of {key}", fields={"status": "success", **sides}))
    write_tars(folder / "pool", samples, 2)
    path = folder / "recipe.yaml"
    path.write_text('input: {name: tars, format: webdataset, path: "pool/*.tar"}\nrules: {side: min_side >= 200}\n')
    return path


def test_rules_on_sizes_of_resized_images_are_warned_of(cli, recipe):
    """A rule on the original size drops samples; a rule on the new size drops none."""
    planned = cli("plan", str(recipe))
    text = flat(planned.out)
    assert planned.status == 0 and "side 0 (0.00%)" in text
    assert "warning: input 'tars': " in text and "images were resized, for example from " in text and COLUMNS in text
    done = cli("run", str(recipe), "--out", str(recipe.parent / "run"))
    assert done.status == 0 and "images were resized, for example from " in done.err
    original = changes(f"input.columns={COLUMNS.partition(' ')[2]}", f"rules.side={SIDE}", f"rules.aspect={ASPECT}")
    planned = cli("plan", str(recipe), *original)
    assert planned.status == 0 and "resized" not in planned.out and " side −" in flat(planned.out)
    assert "resized" not in cli("plan", str(recipe), "--set", "rules.side=words > 2").out
