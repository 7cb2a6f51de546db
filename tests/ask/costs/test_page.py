"""Files of prices, valid and not; and the page on costs."""

import datetime

import pytest

from curate.ask.costs.model import (
    CPU,
    READS,
    SHUFFLED,
    STORED,
    WRITES,
    CalibrationRun,
    Cost,
    Range,
    Trials,
    Work,
    Workers,
    add_waiting,
)
from curate.ask.costs.prices import MAX_DAYS, CostPlan, load_prices
from curate.ask.text_pages import render_page
from curate.base.errors import RecipeError

ONE = "currency: EUR\nengines:\n  spark:\n    core_hour: {price: 0.5, per: 10, source: a page, date: 2026-01-31}\n"
TRIALS = Trials(*[CalibrationRun(10, 2000, 1000, {})] * 4)


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_figure_is_of_one_unit(tmp_path):
    prices = load_prices(write(tmp_path, ONE))
    price = prices.find("engines.spark.core_hour")
    assert price and price.each == 0.05 and prices.currency == "EUR"
    assert prices.find("engines.spark.gpu_hour") is prices.find("engines.local.core_hour") is None
    assert prices.find("stores.gs.read") is None


SPARK, SOON = "currency: USD\nengines:\n  spark:\n", "{price: 1, source: x, date: soon}"
REFUSED = {
    f"{SPARK}    core_our: 1\n": ["line 4: engines.spark.core_our"],
    f"{SPARK}    core_hour: {{price: 1, date: 2026-01-01}}\n": ["line 4: engines.spark.core_hour.source: is missing"],
    f"{SPARK}    core_hour:\n      price: -1\n      source: x\n": ["line 5: engines.spark.core_hour.price", "-1"],
    f"currency: USD\nstores:\n  gs:\n    read: {SOON}\n": ["line 4: stores.gs.read.date", "'soon'"],
    "engines: {}\n": ["line 1: currency: is missing"], "- 1\n": ["contains [1]", "a YAML mapping"],
    "a: [\n": ["not valid YAML", "line 2"],
}  # fmt: skip


def test_errors_name_file_line_and_key(tmp_path):
    for text, parts in REFUSED.items():
        with pytest.raises(RecipeError) as raised:
            load_prices(path := write(tmp_path, text))
        assert all(part in str(raised.value) for part in ["--prices", path, *parts]), raised.value
    with pytest.raises(RecipeError, match="no such file of prices"):
        load_prices(f"{tmp_path}/none.yaml")


@pytest.mark.parametrize(("days", "words"), [(MAX_DAYS, ""), (MAX_DAYS + 1, "181 days old"), (-1, "in the future")])
def test_old_prices_are_named(days, words, tmp_path):
    prices = load_prices(write(tmp_path, ONE))
    costs = [Cost("measure", CPU, "run", 1, 3600.0, 0.0)]
    plan = CostPlan(costs, None, Work(1, 1, 1), Workers("spark"), "", TRIALS, prices)
    page = str(render_page("costs", plan=plan, today=datetime.date(2026, 1, 31) + datetime.timedelta(days)))
    lines = [line for line in page.splitlines() if line.startswith("warning: prices: ")]
    assert [words in line and "engines.spark.core_hour" in line for line in lines] == [True] * bool(words)
    keys = iter(("engines.spark.core_hour", "engines.spark.gpu_hour"))
    assert len(list(prices.find_old(keys, datetime.date(2026, 1, 31) + datetime.timedelta(days)))) == bool(words)


def test_the_package_s_figures_have_sources_and_dates():
    prices = load_prices()
    assert {*prices.engines} == {"dataflow", "spark"} and {*prices.stores} == {"gs", "s3"}
    assert {*prices.engines["dataflow"]} == {"core_hour", "memory_hour", "disk_hour", "gpu_hour", "shuffled_gb"}
    assert all({*store} == {"read", "write", "gb_month"} for store in prices.stores.values())
    for section in (*prices.engines.values(), *prices.stores.values()):
        assert all(price.source and price.date.year >= 2026 for price in section.values())


def page_of(plan):
    return str(render_page("costs", plan=plan, today=datetime.date.today()))


def show(workers, store):
    """The page of a run that takes an hour."""
    amounts = {CPU: 3600.0, READS: 1e6, WRITES: 1e5, SHUFFLED: 1e9, STORED: 1e10}
    costs = [Cost("measure", kind, "run", 1, amount, 0.0) for kind, amount in amounts.items()]
    seconds = Range(3600.0, 3000.0, 4200.0)
    add_waiting(costs, seconds, workers)
    return page_of(CostPlan(costs, seconds, Work(1000, 500, 10), workers, store, TRIALS, load_prices()))


def test_dataflow_s_disks_are_paid_for():
    page = show(Workers("dataflow", 80, 10, 320.0, overhead=(0.0, 0.0, 0.0), disk=1000.0), "gs")
    assert "GB-hours of disk    1,000.00" in page and "missing prices" not in page
    assert "1,000 × 0.000054: https://cloud.google.com/dataflow/pricing" in page


@pytest.mark.parametrize(("store", "read", "write", "kept"), [("s3", 0.40, 0.50, 0.23), ("gs", 0.40, 0.50, 0.20)])
def test_requests_and_storage_have_prices(store, read, write, kept):
    page = show(Workers("spark", 80, 80, overhead=(0.0, 0.0, 0.0)), store)
    rows = (line.split() for line in page.splitlines() if line.strip().startswith("stores."))  # no warning of its age
    found = {words[0]: float(words[1]) for words in rows}
    assert found == {f"stores.{store}.read": read, f"stores.{store}.write": write, f"stores.{store}.gb_month": kept}
    assert "missing prices" not in page and "disk" not in page.partition("money")[0]
