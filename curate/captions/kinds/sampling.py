"""How the tokens of a text are drawn: what kinds share.

Seeds are hashes of what a text is for, so that a text does not depend on what else is requested, and a sample's further
texts are added to the first ones, which stay as they are.
"""

from dataclasses import replace

from curate import ids
from curate.engines.request import Request, Sampling

GREEDY = 0.0
NUCLEUS_TEMPERATURE, NUCLEUS_TOP_P = 0.9, 0.9
"""How several texts of one image are drawn; top_p as in SIEVE."""


def text_sampling(temperature: float | None, ordinal: int, max_tokens: int) -> Sampling:
    """Return how a kind draws its text number `ordinal`, but for the seed, which `seeded` adds.

    Args:
        temperature: of every text; None: the first one is greedy, since it is the likeliest and the only one where one
            is requested, and further ones are drawn from the nucleus of 0.9.
        ordinal: from 0.
        max_tokens: the largest number of tokens.
    """
    if temperature is None:
        temperature = NUCLEUS_TEMPERATURE if ordinal else GREEDY
    return Sampling(temperature, 1.0 if temperature == GREEDY else NUCLEUS_TOP_P, max_tokens)


def seeded(sampling: Sampling, request: Request, ordinal: int, seed: int) -> Sampling:
    """Return the sampling with a seed of 31 bits that the request's uid, kind and style, ordinal and the recipe's seed draw.

    A greedy one is left as it is, so that its answer is found again under another seed of the recipe.
    """
    if sampling.temperature == GREEDY:
        return sampling
    return replace(
        sampling, seed=ids.hash64(f"{request.uid}\0{request.kind}\0{request.style}\0{ordinal}\0{seed}") >> 33
    )
