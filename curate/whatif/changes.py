"""What a finished run can answer without measuring again: other rules, deduplication and balance.

In: the run's recipe and `key=value` overrides. Out: the changed recipe. What would need the pool is refused, with the
command that would do it.
"""

from collections.abc import Sequence

from curate.errors import RecipeError
from curate.recipe.recipe import Recipe, change_recipe
from curate.wording import did_you_mean

ACCEPTED = ("rules", "dedup", "balance")
_HINT = (
    "accepted: balance.t=…, balance.rows=…, balance=null, rules.NAME=… (an expression, {top: f, of: column}, or null to "
    "remove it), rules.NAME.top=…, dedup.by=…, dedup.prefer=…"
)


def changed_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe as overridden.

    Raises:
        RecipeError: an override is wrong, or asks for what is not in the tables of a run.
    """
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0]
        if section in ACCEPTED:
            continue
        if section == "seed":
            raise RecipeError(f"--set {override}: a seed changes which rows are drawn, not how many to expect; {_HINT}")
        if section in Recipe.model_fields:
            raise RecipeError(
                f"--set {override}: {section} cannot be changed without a run (`curate run RECIPE --reuse DIR --set …`); "
                f"{_HINT}"
            )
        hint = did_you_mean(section, ACCEPTED)
        raise RecipeError(f"--set {override}: {section!r} is not a section that can be changed; {hint}{_HINT}")
    changed = change_recipe(recipe, overrides)
    if changed.dedup.against not in (recipe.dedup.against, None):
        raise RecipeError(
            "dedup.against: the images of an evaluation set are compared by a run only; accepted: as it was, or "
            "dedup.against=null"
        )
    return changed
