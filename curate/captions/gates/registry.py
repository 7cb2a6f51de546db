"""The gates, in order: a text's reason is the first one that it fails."""

from curate.captions.gates.chatter import Preamble, Unsafe
from curate.captions.gates.echo import Echo, EchoPrompt
from curate.captions.gates.facts import Names, Numbers
from curate.captions.gates.gate import Gate
from curate.captions.gates.language import Language
from curate.captions.gates.measured import ClipScore, FClipScore, KeptEntries
from curate.captions.gates.shape import Empty, Length, Repetition

KINDS: tuple[Gate, ...] = (
    Empty(), EchoPrompt(), Echo(), Preamble(), Length(), Language(), Numbers(), Names(), KeptEntries(), Repetition(),
    ClipScore(), FClipScore(), Unsafe(),
)  # fmt: skip
