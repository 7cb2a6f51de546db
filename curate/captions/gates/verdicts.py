"""What all gates say of a column of texts: every verdict is kept, and the first that fails is the reason."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.base.errors import RunError
from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.recipe.gates import GATES, Gates

PASSED = "passed"


class Verdicts(NamedTuple):
    """What the gates say, without nulls."""

    first: pa.Array  # string [rows], `passed` or the first gate that failed
    failed: pa.Array  # list<string> [rows], all that did, in the order of the gates


def run_gates(candidates: Candidates, options: Gates) -> Verdicts:
    """Return what all gates that apply say. Of an empty text nothing else is said."""
    gates = GATES.kinds()
    masks = np.zeros((len(candidates.texts), len(gates)), np.bool_)
    for place, gate in enumerate(gates.values()):
        has_all = all(getattr(candidates, name) is not None for name in gate.needs)
        if gate.key not in options.off and candidates.relation in gate.relations and has_all:
            masks[:, place] = _check(gate, candidates, options)
    masks[masks[:, 0], 1:] = False
    codes = pa.array([*gates, PASSED], pa.string())
    first = np.where(masks.any(1), masks.argmax(1), len(gates))
    ends = np.concatenate([[0], np.cumsum(masks.sum(1))])
    failed = codes.take(pa.array(np.nonzero(masks)[1]))
    return Verdicts(codes.take(pa.array(first)), pa.ListArray.from_arrays(pa.array(ends, pa.int32()), failed))


def _check(gate: Gate, candidates: Candidates, options: Gates) -> Mask:
    """Return which texts a gate fails. Raises RunError, which names the package, where it returns no mask."""
    option = None if gate.option is None else getattr(options, gate.option.key)
    mask = np.asarray(gate.check(candidates, option))
    if mask.dtype != np.bool_ or mask.shape != (len(candidates.texts),):
        where = f"gate {gate.key!r} of package {GATES.package(gate.key)}"
        returned = f"check returned {mask.dtype} {list(mask.shape)}"
        raise RunError(f"{where}: {returned}; accepted: bool [{len(candidates.texts)}], true where a text fails")
    return mask
