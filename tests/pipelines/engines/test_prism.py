"""Prism: what it needs on this machine."""

import pytest

from curate.base.errors import RecipeError
from tests.pipelines.engines.java import check


def test_prism_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"PrismRunner needs the program prism.*--prism_location=FILE \(go install"):
        check("--runner=prism", f"--prism_location={tmp_path}/prism")
    (tmp_path / "prism").touch()
    check("--runner=prism", f"--prism_location={tmp_path}/prism")
