"""The kinds of engines, in the order in which messages list them."""

from curate.engines.engine import EngineKind
from curate.engines.guided import Guided
from curate.engines.openai import OpenAI
from curate.engines.recorded import Recorded
from curate.engines.vllm import Vllm

ENGINES = (
    EngineKind("openai", OpenAI),
    EngineKind("vllm", Vllm),
    EngineKind("guided", Guided),
    EngineKind("recorded", Recorded),
)
