"""The engine kinds, in the order in which messages list them."""

from curate.llm.engine import EngineKind, EngineOptions
from curate.llm.guided import Guided
from curate.llm.openai import OpenAI
from curate.llm.recorded import Recorded
from curate.llm.vllm import Vllm

_SECTIONS: dict[str, type[EngineOptions]] = {"openai": OpenAI, "vllm": Vllm, "guided": Guided, "recorded": Recorded}
ENGINES = tuple(EngineKind(key, section) for key, section in _SECTIONS.items())
