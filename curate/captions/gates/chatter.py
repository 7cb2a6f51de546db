"""Gates of texts that speak to a user instead of describing an image, and of what strangers slip in through them.

The patterns, for RE2, are English: models refuse and chat in the language of their training, and in English first.
"""

import re

import numpy as np

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import brought_in, matches, read_rows

_TASK = (
    r"(?:caption|alt[- ]?text|rewrit(?:e|ten|ing)|rephras(?:e|ed|ing)|reword(?:ed|ing)|paraphrased?|description"
    r"|translation|translated|version|alternative|response|answer|output|sentence|example|option)s?"
)
_I_CANNOT = r"i (?:can(?:not|['’]t| not)|could(?: not|n['’]t)|do(?: not|n['’]t)|will not|won['’]t|am (?:not|unable))"
_PREAMBLE = {
    "markup": r"(?i)<\|[^|<>\n]{1,40}\|>|</?s>|\[/?(?:INST|SYS|END|EOS|BOS|PAD|UNK|SEP)\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|</?(?:think|thinking|image|caption|recaption|assistant|user|system|unk|pad|bos|eos)>"
    r"|<0x[0-9A-F]{2}>|(?:^|\s)###? ?[A-Za-z]|^\*\*|```|^\s*(?:1[.)]|[-*•]) ",
    "opening": r"(?i)^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|understood|got it"
    r"|no problem)\b *[,.!:]|(?:sure|certainly|of course|okay|ok)\b[^.]{0,20}\b(?:here|i can|i will|i'll)\b"
    rf"|[^.:]{{0,60}}\b{_TASK}\b[^.:]{{0,30}}(?:[:：]| - )|here(?:'s|’s| is| are)\b[^.]{{0,60}}\b{_TASK}\b"
    r"|here you (?:are|go)\b|here(?:'s|’s| is) (?:one|another|a) way\b|(?:i am|i['’]m)? ?(?:happy|glad) to help\b"
    r"|it (?:seems|looks|appears) (?:that |like )?you\b|(?:assistant|user|system|human|bot|ai) *[:：])",
    "refusal": r"(?i)\bas an? (?:ai|artificial intelligence|(?:large )?language model|chatbot|text-(?:based|only))\b"
    rf"|^\W*sorry\b|\bi(?:['’]m| am) (?:sorry|afraid|unable|not able|just an? (?:ai|language)|an? (?:ai"
    rf"|language model))\b|\b{_I_CANNOT}\b|\bsomething i can\b|\b(?:i apologi[sz]e|my apologies)\b"
    rf"|\bunfortunately, (?:i|the|there|this)\b",
    "task": r"(?i)\b(?:this|that|the|original|given|your|my|above) (?:original |single |one-line )?(?:caption"
    r"|alt[- ]?text|sentence)\b|\brewrit(?:e|es|ten|ing)\b|^\W*(?:i (?:will|would|have|am|can)|i['’](?:ll|m|ve|d))\b"
    r"|^\W*the user\b|^\W*in the (?:above|following|given)\b|^\W*how to (?:edit|rewrite)\b",
    "chat": r"(?i)\b(?:let me|(?:i )?hope (?:this|that) helps|feel free to (?:ask|let|reach)|please (?:provide|share"
    r"|specify|clarify|let)|(?:could|can|would) you (?:please )?(?:share|provide|tell|give|describe|like me)"
    r"|anything else\?|if you['’]?(?:d| would)? (?:like|want|need|have any)|note that (?:this|the|i)|note: i"
    r"|i (?:have |['’]ve )?(?:kept|rewrote|rewritten|rephrased|changed|made sure|tried to)"
    r"|(?:this|the) (?:caption|text|sentence) (?:was|is|has been|can be|could be) (?:rewritten|rephrased|reworded"
    r"|translated)|no (?:caption|image|text|alt[- ]?text) (?:is|was|has been)? ?(?:provided|given|available))",
}
"""What is said to a user, by class: markup of chats, an opening, a refusal, a closing."""

_DOMAIN = r"(?:com|org|net|info|biz|io|co|uk|eu|de|fr|nl|pl|ru|cn|jp|br|ca|au|shop|store|online|site|app|dev|tv|ly)"
_INSERTED = {
    "instruction": r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:instructions?|prompts?|rules|above"
    r"|previous|prior|everything|guidelines|directions|told|before)\b|\b(?:pay no attention to|do not follow"
    r"|don['’]t follow|repeat after me|you must (?:obey|now|answer|respond)|from now on|click here)\b|\bnew (?:task"
    r"|instructions?|prompt|rules)\b|\b(?:your|earlier|previous|system|developer) (?:instructions?|rules|prompt"
    r"|guidelines|message)\b|\b(?:end|beginning|start) of (?:the )?(?:caption|prompt|instructions?)\b"
    r"|\byou are (?:now )?(?:an? )?(?:chatgpt|gpt|ai|assistant|language model|dan|jailbr\w+)\b|\b(?:jailbreak"
    r"|prompt injection)\b|\b(?:respond|reply|answer|output|print|say|write|repeat)\b (?:only|exactly|nothing"
    r"|the (?:word|following|phrase|text))\b|\binstead,? (?:say|write|output|print|respond|reply)\b",
    "address": r"(?i)\b(?:https?|ftp)://\S+|\bwww\.\S+|[\w.+-]{1,64}@[\w-]+\.[\w.]+|[(\[](?:at|dot)[)\]]"
    rf"|\b[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.{_DOMAIN}\b(?:/\S*)?",
    "phone": r"(?:\+|\b00|\(|\b)\d(?:[ ./()-]{0,2}\d){8,14}\b",
    "code": r"(?i)</?[a-z!][^<>]{0,200}>|&(?:[a-z]{2,8}|#x?[0-9a-f]{1,6});|```|\{\{|\}\}|\$\{|javascript:"
    r"|\\x[0-9a-f]{2}|\bon(?:error|load|click)=|\bfunction ?\(|=>|\b(?:def|class|var|const) \w+ ?[(={:;]"
    r"|\bimport (?:os|sys|re|numpy)\b|\bselect .{1,40} from \w+ where\b|;--|\brm -rf\b|\b(?:print|eval|exec) ?\("
    r"|[!-/:-@\[-`{-~]{7}",
    "hidden": "[\\x00-\\x08\\x0B\\x0C\\x0E-\\x1F\\x7F\u202a-\u202e\u2066-\u2069]",
}
"""What a text must not bring in, by class: instructions to a model, addresses, telephone numbers, code, and characters
that are not seen."""


class Preamble(Gate):
    """Fails a text that begins with an opening ("Sure, here is", "Here is a rewritten caption:") or a label
    ("Caption:"), refuses or speaks of being a model, asks or offers something, or holds markup of chats (`<|im_end|>`,
    `[INST]`, `###`).

    Passes a class of phrases that its caption has too, other languages, and a chat in words of its own.
    """

    key = "preamble"
    summary = "chatter before or after the caption"

    def check(self, candidates: Candidates, option: None) -> Mask:
        """See `Gate`."""
        masks = [brought_in(candidates, pattern) for pattern in _PREAMBLE.values()]
        return np.asarray(np.logical_or.reduce(masks), np.bool_)


class Unsafe(Gate):
    """Fails a text that brings in an instruction to a model ("ignore the previous …", "you are now …"), a URL, domain,
    e-mail address or phone number, tags and entities of HTML, code, control characters or marks of writing direction.

    Passes what its caption holds, letter by letter; and slurs and other offence, which are for the recipe's rules.
    """

    key = "unsafe"
    summary = "instructions to a model, addresses or code that the original does not have"

    def check(self, candidates: Candidates, option: None) -> Mask:
        """See `Gate`."""
        bad = np.zeros(len(candidates.texts), np.bool_)
        for pattern in _INSERTED.values():
            compiled = re.compile(pattern)
            for row, text, original, _ in read_rows(np.flatnonzero(matches(candidates.texts, pattern)), candidates):
                caption = _bare(original)
                # An address takes the punctuation behind it along.
                bad[row] |= not all(_bare(match[0]).rstrip(",.;:!?)") in caption for match in compiled.finditer(text))
        return bad


def _bare(text: str) -> str:
    return "".join(text.lower().split())
