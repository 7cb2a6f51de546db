"""The kinds of engines, in the order in which messages list them."""

from curate.llm.engine import EngineKind
from curate.llm.guided import Guided
from curate.llm.openai import OpenAI
from curate.llm.recorded import Recorded
from curate.llm.vllm import Vllm

ENGINES = (
    EngineKind("openai", OpenAI),
    EngineKind("vllm", Vllm),
    EngineKind("guided", Guided),
    EngineKind("recorded", Recorded),
)
