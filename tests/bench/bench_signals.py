"""What each signal costs, in milliseconds of one core: `python -m tests.bench.bench_signals --photos photos.tar`; a minute.

The tar holds `KEY.jpg` and `KEY.txt`; images are made 256 x 256, img2dataset's default. ViT-B/32 has random weights: what it costs
does not depend on them.
"""

import argparse
import io
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image

from curate.read.image import measure_image
from curate.recipe.measure import Image as ImageOptions
from curate.signals import language, nsfw, text_area
from curate.signals.signal import BuildContext, IdentifyContext

WORDS = 50  # captions are repeated so often: a few are too fast to be timed


def milliseconds(work, items):
    """Of this thread's CPU time for each item, the best of five, after a first turn that loads and compiles."""
    work()
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best / items * 1e3


def resize(data):
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize((256, 256)).save(out, "JPEG", quality=95)
    return out.getvalue()


def signal_of(kind):
    """The signal of a section without any key."""
    options = kind.section()
    identity = kind.identify(kind.key, options, IdentifyContext({}, {}, True))
    return next(iter(kind.build(kind.key, options, BuildContext({kind.key: identity}, {}))))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    torch.set_num_threads(1)
    with tarfile.open(parser.parse_args().photos) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    files = [resize(data) for name, data in members.items() if name.endswith(".jpg")]
    captions = pa.array([data.decode() for name, data in members.items() if name.endswith(".txt")])
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    print(f"{len(images)} images of 256 x 256, milliseconds of a core")
    alone = [ImageOptions(), ImageOptions(phash=True)]
    decode, hashed = (milliseconds(lambda o=o: [measure_image(data, o) for data in files], len(files)) for o in alone)
    print(f"image                {decode:8.3f}\nimage, phash         {hashed - decode:8.3f} more")
    many = pa.concat_arrays([captions] * WORDS)
    detect = signal_of(language.KIND).compute
    print(f"language             {milliseconds(lambda: detect(many), len(many)):8.3f} a caption")
    for kind in (nsfw.KIND, text_area.KIND):
        start = signal_of(kind).start
        observe = start(captions).observe
        print(f"{kind.key:20} {milliseconds(lambda o=observe: [o(i) for i in images], len(images)):8.3f} an image")
    clip()


def clip():
    import open_clip

    model, pixels = open_clip.create_model("ViT-B-32").eval(), torch.zeros(32, 3, 224, 224)
    with torch.inference_mode():
        print(f"ViT-B/32             {milliseconds(lambda: model.encode_image(pixels), 32):8.3f} an image")


if __name__ == "__main__":
    main()
