"""Small pipelines give on Spark what they give on Beam's local runner."""

from collections.abc import Callable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsDict, AsIter, AsList, AsSingleton, TaggedOutput
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, Repeatedly
from apache_beam.transforms.window import FixedWindows, Sessions, SlidingWindows, TimestampedValue

pytestmark = pytest.mark.runners

Build = Callable[[beam.Pipeline], beam.PCollection[Any]]


def read(root):
    return root | beam.io.ReadFromText(__file__) | beam.Map(len)


def many(root):
    return root | beam.Create(range(300)) | beam.FlatMap(lambda number: [number] * (number % 3)) | beam.Reshuffle()


def lifted(root):
    return root | beam.Create(range(100)) | beam.Map(lambda n: (n % 7, n)) | beam.CombinePerKey(sum)


def mean(root):
    return root | beam.Create(range(100)) | beam.combiners.Mean.Globally()


def empty(root):
    return root | beam.Create([]) | beam.CombineGlobally(sum)


def grouped(root):
    pairs = root | beam.Create([("a", 1), ("b", 2), ("a", 3), (None, 4), ((1, "x"), 5), (None, 6)])
    return pairs | beam.GroupByKey() | beam.MapTuple(lambda key, values: (repr(key), sorted(values)))


def coarse(root):
    left, right = root | "L" >> beam.Create([(1, "a"), (2, "b")]), root | "R" >> beam.Create([(1, "c")])
    return {"left": left, "right": right} | beam.CoGroupByKey() | beam.MapTuple(lambda key, found: (key, str(found)))


def flattened(root):
    numbers = root | beam.Create([1, 2])
    texts = root | "Texts" >> beam.Create(["a", "b"])
    none = () | "None" >> beam.Flatten(pipeline=root)
    return (numbers, texts, numbers, none) | beam.Flatten() | beam.Map(str)


def nothing(root):
    return () | beam.Flatten(pipeline=root) | beam.Map(str)


def outputs(root):
    def divide(number):
        yield TaggedOutput("odd" if number % 2 else "even", number)
        yield -number

    found = root | beam.Create(range(10)) | beam.FlatMap(divide).with_outputs("odd", "even", main="all")
    odd = found.odd | "Odd" >> beam.Map(lambda number: ("odd", number))
    return (found.all, odd, found.even) | beam.Flatten() | beam.Map(str)


def sides(root):
    numbers = root | beam.Create(range(5))
    pairs = numbers | beam.Map(lambda number: (number, number * number))
    total = numbers | beam.CombineGlobally(sum)

    def use(number, listed, given, squares, one):
        return number, len(listed), sum(given), squares[number], one

    return numbers | "Use" >> beam.Map(use, AsList(numbers), AsIter(numbers), AsDict(pairs), AsSingleton(total))


def multimap(root):
    pairs = root | "Pairs" >> beam.Create([("a", 1), ("a", 2), ("b", 3)])
    found = beam.pvalue.AsMultiMap(pairs)
    return root | beam.Create(["a", "b", "c"]) | beam.Map(lambda key, found: (key, sorted(found[key])), found)


def large_side(root):
    texts = root | beam.Create(range(200)) | beam.Map(lambda number: str(number) * 1000)  # 0.6 MB: broadcast
    return (
        root
        | "Two" >> beam.Create([1, 2])
        | "Use" >> beam.Map(lambda n, texts: (n, len("".join(texts))), AsIter(texts))
    )


def windows(root):
    stamped = root | beam.Create(range(40)) | beam.Map(lambda n: TimestampedValue((n % 2, n), n))
    sliding = stamped | beam.WindowInto(SlidingWindows(10, 5)) | beam.GroupByKey()
    side = stamped | "Fixed" >> beam.WindowInto(FixedWindows(10)) | beam.Values()

    def say(pair, side, window=beam.DoFn.WindowParam):
        return str(window), pair[0], sorted(pair[1]), sum(side)

    return sliding | beam.Map(say, AsIter(side))


def sessions(root):
    times = [1, 2, 3, 20, 21, 50]
    stamped = root | beam.Create(times) | beam.Map(lambda n: TimestampedValue(("key", n), n))
    return stamped | beam.WindowInto(Sessions(5)) | beam.GroupByKey() | beam.MapTuple(lambda _, found: sorted(found))


def triggered(root):
    pairs = root | beam.Create(range(6)) | beam.Map(lambda n: ("key", n))
    trigger = Repeatedly(AfterCount(1))
    discarding = beam.WindowInto(FixedWindows(10), trigger=trigger, accumulation_mode=AccumulationMode.DISCARDING)
    return pairs | discarding | beam.GroupByKey() | beam.FlatMap(lambda pair: pair[1])


PIPELINES = [
    *(read, many, lifted, mean, empty, grouped, coarse, flattened, nothing, outputs),
    *(sides, multimap, large_side, windows, sessions, triggered),
]


@pytest.mark.parametrize("build", PIPELINES)
def test_same_as_the_local_runner(build, options, tmp_path):
    def run(name, options):
        with beam.Pipeline(options=options) as root:
            build(root) | "Say" >> beam.Map(repr) | "Write" >> beam.io.WriteToText(str(tmp_path / name))
        return sorted(line for file in tmp_path.glob(f"{name}-*") for line in file.read_text().splitlines())

    found = run("spark", options)
    assert found == run("local", PipelineOptions(["--runner=FnApiRunner"]))
    assert found or build is nothing
