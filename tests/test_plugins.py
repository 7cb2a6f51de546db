"""What packages may import: all of it is there, for type checkers too, and nothing heavy before it is used."""

import subprocess
import sys

import pytest

from curate import plugins


@pytest.mark.parametrize("name", plugins.__all__)
def test_a_name_is_what_its_module_has(name: str) -> None:
    value = getattr(plugins, name)
    assert getattr(sys.modules[plugins._modules()[name]], name) is value


def test_all_lists_agree() -> None:
    assert plugins.__all__ == sorted(plugins.__all__) == dir(plugins) == sorted(plugins._modules())


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'curate.plugins' has no attribute 'Segment'; it has .*Section"):
        plugins.Segment


def test_importing_it_loads_nothing() -> None:
    """A name loads its module, a signal's class no format of inputs."""
    code = (
        "import sys; import curate.plugins; print([m for m in sys.modules if m.split('.')[0] in ('pyarrow', 'numpy', 'curate')]);"
        "from curate.plugins import TextSignal; print('curate.emit' in sys.modules, 'curate.pool.urls.format' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['curate', 'curate.plugins']", "False False"]
