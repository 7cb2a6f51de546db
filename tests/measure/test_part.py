"""Images measured in threads: however many units are in hand, a few observations a core are in memory."""

import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.base import process
from curate.base.errors import RunError
from curate.measure import images as measuring
from curate.recipe.measure import Image as ImageOptions
from curate.signals.signal import ImageSignal, SignalOutput, image_signal

CORES, IMAGES = 32, 30


class Counted:
    """An image signal whose first observation is read late, when all units have decoded as many images as they may."""

    lock = threading.Lock()
    in_memory = largest = 0

    def __init__(self, all_wait, go_on):
        self.all_wait, self.go_on = all_wait, go_on
        self.rows = []

    def observe(self, image):
        with self.lock:
            Counted.in_memory += 1
            Counted.largest = max(Counted.largest, Counted.in_memory)
        return image.width

    def add(self, row, observation):
        if not self.rows:
            self.all_wait.wait(300)
            self.go_on.wait(300)
        with self.lock:
            Counted.in_memory -= 1
        self.rows.append((row, observation))

    def finish(self):
        assert self.rows == [(row, row + 1) for row in range(IMAGES)]
        return SignalOutput(())


def images():
    for row in range(IMAGES):
        out = io.BytesIO()
        Image.fromarray(np.zeros((1, row + 1), np.uint8)).save(out, "BMP")
        yield out.getvalue()


def test_what_is_decoded_ahead_does_not_grow_with_the_units_in_hand(monkeypatch):
    """32 cores, hence 32 units in hand, whose signals are all busy: an image a unit and 8 a core have been decoded."""
    size = 8 * CORES + 64
    monkeypatch.setattr(measuring, "_DECODED", process.Backlog(size))
    all_wait, go_on = threading.Barrier(CORES + 1), threading.Event()
    signal = ImageSignal("counted", (), "", start=lambda captions: Counted(all_wait, go_on))

    def measure(unit):
        captions = pa.nulls(IMAGES, pa.string())
        return measuring.measure_images(images(), captions, ImageOptions(), [signal], [""])["width"]

    with ThreadPoolExecutor(CORES) as units:
        measured = [units.submit(measure, unit) for unit in range(CORES)]
        all_wait.wait(300)
        list(process.in_threads(lambda _: None, range(4 * process.CORES)))  # earlier work ends
        assert size // 2 < Counted.largest <= size + 2 * CORES < CORES * IMAGES
        go_on.set()
        assert [len(one.result()) for one in measured] == [IMAGES] * CORES
    assert Counted.largest <= size + 2 * CORES and Counted.in_memory == 0


class Fussy:
    """Refuses images of some widths."""

    columns = pa.schema([("width", pa.float32())])

    def observe(self, image):
        if image.width == 3:
            raise ValueError("three")
        return image.width if image.width < 20 else image.no_width

    def finish(self, observed, captions):
        return [pa.array(observed, pa.float64())]


def measure_fussy(count):
    signal = replace(image_signal("fussy", Fussy(), 1), package="my-fussy 1")
    labels = [f"image {row} of a.tar" for row in range(count)]
    captions = pa.nulls(count, pa.string())
    return measuring.measure_images(islice(images(), count), captions, ImageOptions(), [signal], labels)


def test_an_image_that_a_signal_cannot_use_is_null_with_its_error():
    table = measure_fussy(6)
    assert table["fussy.width"].to_pylist() == [1, 2, None, 4, 5, 6] and table["fussy.width"].type == pa.float32()
    errors = table["fussy errors"].to_pylist()
    assert re.fullmatch(r"ValueError: three at test_part.py:\d+ in observe", errors[2]) and not any(errors[3:])


def test_a_load_that_fails_is_no_fault_of_the_image(monkeypatch):
    """Else all images of a worker without the weights would be null, and stay so."""

    def load():
        raise ValueError("damaged weights")

    monkeypatch.setattr(Fussy, "observe", lambda *_: process.process_cache("test of a load that fails", load))
    with pytest.raises(RunError, match=r"signal 'fussy' of package my-fussy 1: ValueError: damaged weights"):
        measure_fussy(6)


def test_any_other_exception_names_the_image_and_another_number_of_rows_the_signal(monkeypatch):
    with pytest.raises(AttributeError) as caught:
        measure_fussy(25)
    assert caught.value.__notes__ == ["image 19 of a.tar"]
    monkeypatch.setattr(Fussy, "finish", lambda *_: [pa.array([1.0] * 5)])
    message = "signal 'fussy' of package my-fussy 1: its columns have these numbers of rows: 5, 6; accepted: "
    with pytest.raises(RunError, match=message):
        measure_fussy(6)
