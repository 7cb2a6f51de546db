"""A small recipe."""

from tests import kit


def make_recipe(folder, **sections):
    path = folder / "pool"
    if not path.exists():
        kit.write_parquets(path, kit.make_rows(12), 1)
    return kit.recipe_of(str(path / "00000.parquet"), "parquet", **({"rules": {"long": "words > 1"}} | sections))
