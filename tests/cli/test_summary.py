"""What a run prints at its end, such as how to get enough shards for a training loader."""

import re

import pyarrow as pa
import pytest

from curate.ask.opened import connected
from curate.ask.report.sections import funnel_section
from curate.cli import summary as summaries
from curate.cli.summary import summary
from tests import kit
from tests.cli.shared import ask


def test_few_shards_are_noted_and_what_gives_enough(tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(40), 2)
    few = kit.run_local(kit.recipe_of(path, max_failed=1.0), tmp_path / "few")
    assert "note:" not in summary(str(few.folder), 1.0)  # nobody trains on so few
    monkeypatch.setattr(summaries, "_TRAINING", 40)
    text = summary(str(few.folder), 1.0)
    note = rf"--out NEW --reuse {re.escape(str(few.folder))} --set output.rows_per_shard=(\d+) gives (\d+) shards$"
    found = re.search(note, text, re.MULTILINE)
    rows, shards = map(int, found.groups())
    recipe = kit.recipe_of(path, max_failed=1.0, output={"rows_per_shard": rows})
    enough = kit.run_local(recipe, tmp_path / "enough", few.folder)
    assert len(list((enough.folder / "shards").glob("*.tar"))) == shards >= 8
    assert "note:" not in summary(str(enough.folder), 1.0)


@pytest.mark.usefixtures("without_beam")
def test_a_target_size_that_whole_t_miss(cli, pool, tmp_path):
    out = str(tmp_path / "out")
    ran = cli("run", str(pool / "texts.yaml"), "--out", out, "--set", "balance.rows=7").out
    sizes = [point["expected"] for point in ask("whatif", out, "--sweep", "balance.t={1,2}")]
    assert 1 < sizes[0] < 0.95 * 7 and sizes[1] > 7
    for text in (ran, cli("whatif", out, "--rows", "7").out):
        assert "t = 1, the largest" in text and f"{sizes[1]:.0f} with t = 2\n" in text


def test_short_texts_dropped_by_language_are_warned_of(tmp_path):
    """The warning comes if only the model named their language, and if they are many. The report has it too."""
    captions = ["A brown hen.", "A house by the sea, and a dog", *(f"Ein Haus am Meer {n}" for n in range(8))]
    path = kit.write_parquets(tmp_path / "pool", pa.table({"url": [f"u{n}" for n in range(10)], "text": captions}), 1)
    warning = r"english dropped 9 short texts \(90\.0%\) by language, but .*; set measure.language.short to words"
    for name, language, rules in (
        ("alone", {}, {"english": "language = 'en'"}),
        ("few", {}, {"words": "words < 3", "english": "language = 'en'"}),
        ("words", {"short": "words"}, {"english": "language = 'en'"}),
        ("others", {}, {"words": "words < 3"}),
    ):
        done = kit.run_local(
            kit.recipe_of(path, "parquet", measure={"language": language}, rules=rules), tmp_path / name
        )
        text = summary(str(done.folder), 1.0)
        assert bool(re.search(f"warning: {warning}$", text, re.MULTILINE)) == (name == "alone"), text
        with connected(str(done.folder)) as run:
            assert ("short texts" in str(funnel_section(run).facts)) == (name == "alone")
