"""Beam's own battery for runners, out of the installed Beam, on Spark."""

import unittest

import pytest
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions

pytestmark = [pytest.mark.runners, pytest.mark.usefixtures("spark")]

fn_runner_test = pytest.importorskip("apache_beam.runners.portability.fn_api_runner.fn_runner_test")

STATE = "it has state or timers"
FINALIZATION = "it finalizes bundles"
STREAMING = "a collection is unbounded"
DRAINING = "it drains, which is for streaming"
EXCEPTIONS = {
    "test_batch_rebatch_pardos": "Beam warns, but in the executor's Python",
    "test_callbacks_with_exception": FINALIZATION,
    "test_register_finalizations": FINALIZATION,
    "test_pardo_dynamic_timer": STATE,
    "test_pardo_et_timer_with_no_firing": STATE,
    "test_pardo_et_timer_with_no_reset": STATE,
    "test_pardo_et_timer_with_no_reset_and_no_clear": STATE,
    "test_pardo_state_only": STATE,
    "test_pardo_state_timers": STATE,
    "test_pardo_state_timers_non_standard_coder": STATE,
    "test_pardo_timers": STATE,
    "test_pardo_timers_clear": STATE,
    "test_windowed_pardo_state_timers": STATE,
    "test_sdf_default_truncate_when_unbounded": DRAINING,
    "test_sdf_with_truncate": DRAINING,
    "test_sliding_windows": STREAMING,
    "test_unbounded_source_read": STREAMING,
}
REFUSED = {STATE: "state and timers", FINALIZATION: "bundle finalization", STREAMING: "an unbounded collection"}


class TestOnSpark(fn_runner_test.FnApiRunnerTest):
    def create_pipeline(self, is_drain=False):
        return Pipeline(options=PipelineOptions(["--runner=pipelines.spark.SparkRunner"]))


def fails(name, reason):
    """The test, expected to end with the refusal, where it is refused."""
    test = getattr(TestOnSpark, name)

    def ends_as_said(self):
        with self.assertRaisesRegex(Exception, REFUSED.get(reason, "")):
            test(self)

    return ends_as_said


for name, reason in EXCEPTIONS.items():
    if hasattr(TestOnSpark, name):  # as not in every release of Beam
        setattr(TestOnSpark, name, fails(name, reason))


def test_most_pass():
    """Those that Beam itself skips count for nothing."""
    names = set(unittest.TestLoader().getTestCaseNames(TestOnSpark))
    assert len(names - set(EXCEPTIONS)) - 4 >= 51
