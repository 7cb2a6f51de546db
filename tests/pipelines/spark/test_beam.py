"""What the runner relies on in Beam: names that are no promise of Beam's, so their signatures are compared; needs no PySpark."""

import inspect

import pytest
from apache_beam.runners.portability.fn_api_runner import execution, fn_runner, translations, worker_handlers
from apache_beam.runners.worker import data_plane, sdk_worker

PARAMETERS = {
    translations.optimize_pipeline: "pipeline_proto phases known_runner_urns partial kwargs",
    translations.standard_optimize_phases: "",
    translations.TransformContext.length_prefix_pcoll_coders: "self pcoll_id",
    translations.expand_sdf: "stages context",
    sdk_worker.SdkWorker.__init__: "self bundle_processor_cache profiler_factory",
    sdk_worker.SdkWorker.do_instruction: "self request",
    sdk_worker.GlobalCachingStateHandler.__init__: "self global_state_cache underlying_state",
    sdk_worker.StateCache.__init__: "self max_weight",
    sdk_worker.StateHandler.get_raw: "self state_key continuation_token",
    worker_handlers.SingletonStateHandlerFactory.__init__: "self state_handler",
    worker_handlers.StateServicer.append_raw: "self state_key data",
    sdk_worker.BundleProcessorCache.__init__: (
        "self runner_capabilities state_handler_factory data_channel_factory fns data_sampler"
    ),
    sdk_worker.BundleProcessorCache.shutdown: "self",
    data_plane.InMemoryDataChannelFactory.__init__: "self in_memory_data_channel",
    data_plane.DataChannel.input_elements: "self instruction_id expected_inputs abort_callback",
    data_plane.DataChannel.output_stream: "self instruction_id transform_id",
    data_plane.ClosableOutputStream.__init__: "self close_callback",
    data_plane.ClosableOutputStream.maybe_flush: "self",
    execution.WindowGroupingBuffer.__init__: "self access_pattern coder",
    execution.WindowGroupingBuffer.encoded_items: "self",
    fn_runner.FnApiMetrics.__init__: "self step_monitoring_infos user_metrics_only",
}


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__qualname__)
def test_signature(function):
    assert " ".join(inspect.signature(function).parameters) == PARAMETERS[function]


def test_phases():
    """What is prepared comes after splittable DoFns and lifted combiners are apart, and before anything is fused."""
    names = [phase.__name__ for phase in translations.standard_optimize_phases()]
    order = ["lift_combiners", "expand_sdf", "fix_flatten_coders", "greedily_fuse", "sort_stages"]
    assert [name for name in names if name in order] == order
