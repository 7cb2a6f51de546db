"""The page of costs: what each resource comes to in money, by the package's prices."""

import pytest

from curate.ask.costs.model import CPU, READS, SHUFFLED, STORED, WRITES, Cost, Range, Work, Workers, add_waiting
from curate.ask.costs.page import CostPlan, show_costs
from curate.ask.costs.prices import load_prices


def show(workers: Workers, store: str) -> str:
    """The page of a run that takes an hour."""
    amounts = {CPU: 3600.0, READS: 1e6, WRITES: 1e5, SHUFFLED: 1e9, STORED: 1e10}
    costs = [Cost("measure", kind, "run", 1, amount, 0.0) for kind, amount in amounts.items()]
    seconds = Range(3600.0, 3000.0, 4200.0)
    add_waiting(costs, seconds, workers)
    plan = CostPlan(costs, seconds, Work(1000, 500, 10), workers, store, "2,000 rows measured aside")
    return "\n".join(str(line) for line in show_costs(plan, load_prices()))


def test_dataflow_s_disks_are_paid_for() -> None:
    page = show(Workers("dataflow", 80, 10, 320.0, overhead=(0.0, 0.0, 0.0), disk=1000.0), "gs")
    assert "GB-hours of disk    1,000.00" in page and "missing prices" not in page
    assert "1,000 × 5.4e-05: https://cloud.google.com/dataflow/pricing" in page


@pytest.mark.parametrize(("store", "read", "write", "kept"), [("s3", 0.40, 0.50, 0.23), ("gs", 0.40, 0.50, 0.20)])
def test_requests_and_storage_have_prices(store: str, read: float, write: float, kept: float) -> None:
    page = show(Workers("spark", 80, 80, overhead=(0.0, 0.0, 0.0)), store)
    found = {
        words[0]: float(words[1]) for line in page.splitlines() if len(words := line.split()) > 1 and "stores." in line
    }
    assert found == {f"stores.{store}.read": read, f"stores.{store}.write": write, f"stores.{store}.gb_month": kept}
    assert "missing prices" not in page and "disk" not in page.partition("money")[0]
