"""What modules load as they are imported; pyproject.toml has the layers, which `lint-imports` checks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("torch", "torchvision", "open_clip", "vllm", "transformers")


def load(folder, unwanted):
    """Import all modules of a folder in a new process; returns which of the unwanted packages that loads."""
    files = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / folder).rglob("*.py")]
    names = [".".join(file.parts) for file in files if "cli" not in file.parts and not file.name.startswith("__")]
    code = f"import sys, {', '.join(names)}; print(*sorted({{*{unwanted!r}}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_no_step_loads_beam_or_a_model():
    assert load("curate", (*MODELS, "apache_beam", "pyspark")) == []


def test_spark_is_loaded_where_it_runs():
    assert load("pipelines", (*MODELS, "pyspark")) == []
