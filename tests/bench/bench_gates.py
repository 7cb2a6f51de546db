"""Gates measured: faults injected in faithful rewrites, and how many each gate finds; how many faithful ones it refuses.

    python -m tests.bench.bench_gates --data FOLDER [--clip]

FOLDER holds `laion_urls_10k.parquet` (column TEXT), `metadata_396k.json.gz` and `captions_multilingual.jsonl`. Faithful
texts are made by rules (tests/bench/gate_faults.py) of captions of the web, of captions whose names were marked by hand
(gate_names.txt: the half that the rules of names were written with, and the half that they were not), and of the demo's;
the pairs in context that rewrites are shown, which were written by hand, are a fourth set; the fifth, `shorter`, leaves out
three in ten of the words of marked captions that are neither names nor numbers, as no rewrite should, but many do.

Recall: of the texts with a fault, those that the gate which is there for it refuses; `any`: that some gate refuses.
Precision: of as many faithful texts as faulty ones, the faulty among all that the gate refuses; the faithful ones are those
of the same captions, or the shorter ones where more of them are refused. The rates of refused faithful texts follow, gate
by gate; what they are is printed with --show. `--clip` draws the demo's scenes and scores them with the
demo's own model (some minutes). Last comes the speed, on real captions.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.captions.gates import names, numerals
from curate.captions.gates.gate import PASSED, Candidates, Entries, Scores, run_gates
from curate.captions.gates.language import differs
from curate.captions.gates.measured import KeptEntries, entry_weights, falls
from curate.captions.kinds.rewrite import Rewrite
from curate.demo import samples, scenes, words
from curate.demo.drawing import draw
from curate.match.matcher import build_matcher
from curate.match.metadata import read_metadata
from curate.recipe.gates import GATES, Gates
from curate.signals.language import detect_languages
from tests.bench.gate_faults import FAULTS, Case, rewrite, shorten
from tests.demo.graphs import restore

SEED = 8
DEFAULTS = Gates.full()()
STYLES = ("chat_a", "chat_b", "human", "coco")
Judge = Callable[[Sequence[Case]], list[set[str]]]


def read_pairs():
    """The package's pairs in context, of all styles."""
    folder = files("curate.captions").joinpath("examples")
    lines = [line for style in STYLES for line in folder.joinpath(f"{style}.txt").read_text("utf-8").splitlines()]
    return [(a, b) for a, arrow, b in (line.partition(" => ") for line in lines) if arrow]


def read_prompt():
    """The instruction of rewrites."""
    return files("curate.captions").joinpath("templates", "rewrite_chat.v1.txt").read_text("utf-8")


def marked_cases(captions, half, rng, short=False):
    """Rewrites of the captions whose names were marked, by `rewrite` or, `short`, by `shorten`."""
    lines = (Path(__file__).parent / "gate_names.txt").read_text().splitlines()
    begin = lines.index(f"[{half}]") + 1
    cases = []
    for line in lines[begin:]:
        if line.startswith("["):
            break
        row, *found = line.split()
        original = captions[int(row)]
        texts = [(shorten if short else rewrite)(original, rng, names=tuple(found)) for _ in range(4)]
        cases += [Case(original, text, tuple(found)) for text in texts]
    return cases


def demo_cases(count, rng):
    """Rewrites of the demo's captions; their names are its brands and people."""
    known = [
        word for name in (*words.BRANDS, *words.PEOPLE) for word in name.replace("&", " ").split() if len(word) > 2
    ]
    draw = np.random.default_rng(SEED)
    cases = []
    for _ in range(count):
        original = samples.caption(scenes.compose(draw, 240, 240), draw)
        found = tuple(word for word in known if word in original or word.upper() in original)
        cases.append(Case(original, rewrite(original, rng), found))
    return cases


def real_cases(captions, count, rng):
    """Rewrites of real captions in English, of 4 to 40 words."""
    language, score = detect_languages(pa.array(captions))
    sure = np.asarray(score.fill_null(0)) > 0.6
    english = [c for c, code, s in zip(captions, language.to_pylist(), sure, strict=True) if code == "en" and s]
    chosen = rng.sample([c for c in english if 4 <= len(c.split()) <= 40], count)
    return [Case(caption, rewrite(caption, rng)) for caption in chosen]


def judge_texts(cases):
    """The gates that each text fails, of those that need texts alone."""
    examples = [side for pair in read_pairs()[:16] for side in pair]
    given = Candidates(
        Rewrite.relation,
        *_columns(cases),
        prompts=[read_prompt()],
        examples=[] if cases[0].original in examples else examples,
    )
    verdicts = run_gates(given, DEFAULTS)
    assert [PASSED if not failed else failed[0] for failed in verdicts.failed.to_pylist()] == verdicts.first.to_pylist()
    return [set(failed) for failed in verdicts.failed.to_pylist()]


def _columns(cases):
    return pa.array([case.text for case in cases], pa.string()), pa.array(
        [case.original for case in cases], pa.string()
    )


class ByEntries:
    """Judges by metadata, with the counts of a pool."""

    def __init__(self, folder, captions):
        self._matcher = build_matcher(read_metadata(str(folder / "metadata_396k.json.gz"))[0]["entry"].combine_chunks())
        self._entries = self._matcher_entries(folder)
        found = self._matcher.match(pa.array(captions))
        self.counts = np.bincount(found.values.to_numpy(), minlength=len(self._entries))
        self.rows = len(captions)

    @staticmethod
    def _matcher_entries(folder):
        found = read_metadata(str(folder / "metadata_396k.json.gz"))[0]["entry"].to_pylist()
        return found

    def shares(self, cases, weights):
        """The share of weight that each text keeps, by asking the gate at each hundredth."""
        texts, originals = (self._matcher.match(column) for column in _columns(cases))
        given = Entries(texts, originals, weights)
        candidates = Candidates("rewritten", *_columns(cases), entries=given)
        return np.sum([~KeptEntries().check(candidates, kept / 100) for kept in range(1, 101)], 0) / 100

    def without_rarest(self, case):
        """The text without the words of the rarest entry of its caption, where it has them."""
        ids = self._matcher.match(pa.array([case.original]))[0].as_py()
        order = sorted(ids, key=lambda i: (self.counts[i], -len(self._entries[i])))
        for entry in order[:1]:
            kept = case.text.lower().split()
            gone = self._entries[entry].lower().split()
            left = [word for word in case.text.split() if word.lower().strip(",.") not in gone]
            return " ".join(left) if len(left) < len(kept) else None
        return None


def plant(cases, make, rng):
    """Each case with the fault, those that have something to damage."""
    made = [(case, make(case, rng)) for case in cases]
    return [Case(case.original, text, case.names) for case, text in made if text is not None]


def report(fault, where, gate, found, refused):
    """A line of the table."""
    if not found:
        return
    recall = sum(gate in gates for gates in found) / len(found)
    some = sum(bool(gates) for gates in found) / len(found)
    precision = recall / (recall + refused) if recall + refused else float("nan")
    print(f"  {fault:30} {where:9} {gate:12} {len(found):5}   {recall:6.3f}  {some:6.3f}  {precision:9.3f}", flush=True)


def faults_table(sets, rng, show):
    """Faults that texts alone tell."""
    clean = {name: judge_texts(cases) for name, cases in sets.items()}
    rates = {
        name: {gate: sum(gate in gates for gates in found) / len(found) for gate in GATES.kinds()}
        for name, found in clean.items()
    }
    examples = read_pairs()[:16]
    prompt = [line for line in read_prompt().splitlines() if len(line.split()) > 6]
    injected = dict(FAULTS)
    injected["prompt or example copied"] = (
        "echo_prompt",
        lambda case, rng: rng.choice(
            (
                rng.choice(prompt),
                rng.choice(examples)[1],
                rng.choice(examples)[0],
                f"{case.text} => {rng.choice(examples)[1]}",
            )
        ),
    )
    print(f"  {'fault':30} {'texts':9} {'gate':12} {'n':>5}   recall     any  precision")
    for fault, (gate, make) in injected.items():
        for where, cases in sets.items():
            if where == "shorter" or (where == "pairs" and gate in ("echo_prompt", "names")):
                continue
            made = plant(cases, make, rng)
            found = judge_texts(made) if made else []
            report(fault, where, gate, found, max(rates[where][gate], rates["shorter"][gate]))
            for case, gates in zip(made, found, strict=True):
                if show > 1 and gate not in gates and rng.random() < 0.1:
                    print(f"      missed: {case.original!r} -> {case.text!r}")
    print("\n  faithful texts that a gate refuses, in %")
    print(
        f"  {'texts':9} {'n':>5}  {'some gate':>9}  "
        + "  ".join(f"{gate[:8]:>8}" for gate in GATES.kinds() if gate in WITH_TEXTS)
    )
    for where, found in clean.items():
        some = 100 * sum(map(bool, found)) / len(found)
        line = "  ".join(f"{100 * rates[where][gate]:8.2f}" for gate in GATES.kinds() if gate in WITH_TEXTS)
        print(f"  {where:9} {len(found):5}  {some:9.2f}  {line}")
        for case, gates in zip(sets[where], found, strict=True):
            if show and gates and rng.random() < 0.3:
                print(f"      refused: {sorted(gates)} {case.original!r} -> {case.text!r}")


WITH_TEXTS = frozenset(GATES.kinds()) - {"entries", "clip_score", "f_clipscore"}


def languages_table(folder, rng):
    """Other languages: translated captions, by score and length of the text."""
    rows = [json.loads(line) for line in (folder / "captions_multilingual.jsonl").read_text("utf-8").splitlines()]
    codes = ("de", "fr", "es", "it", "nl", "pl", "ru", "tr", "zh_CN", "ja")
    print(
        "\n  language; captions of at least so many words, `score` of 0.5, 0.6, 0.7, 0.8: recall and refused faithful texts"
    )
    for least in (1, 4, 7):
        chosen = [
            row for row in rows if len(row["caption"].split()) >= least and set(codes) <= row["translations"].keys()
        ]
        originals, same, other = [], [], []
        for row in chosen:
            for _ in range(3):
                originals.append(row["caption"])
                same.append(rewrite(row["caption"], rng))
                other.append(row["translations"][rng.choice(codes)])
        columns = [pa.array(texts) for texts in (originals, same, other)]
        line = [
            f"{differs(columns[2], columns[0], None, s).mean():.3f} {differs(columns[1], columns[0], None, s).mean():.4f}"
            for s in (0.5, 0.6, 0.7, 0.8)
        ]
        print(f"    rewrite      {least} words, n {len(originals):5}: " + " | ".join(line))
        # A translation into one language: right ones, against the English caption that was not translated.
        line = []
        for s in (0.5, 0.6, 0.7, 0.8):
            bad = np.concatenate([differs(columns[0], columns[0], code, s) for code in codes])
            right = np.concatenate(
                [differs(pa.array([row["translations"][code] for row in chosen]), None, code, s) for code in codes]
            )
            line.append(f"{bad.mean():.3f} {right.mean():.4f}")
        print(f"    translation  {least} words, n {len(right):5}: " + " | ".join(line))


def entries_table(judge, sets):
    """The rarest entry dropped, by weight and threshold."""
    weights = {"log(N / count)": entry_weights(judge.counts, judge.rows), "1 / count": 1 / np.maximum(judge.counts, 1)}
    print("\n  dropped rarest entry: entries; share kept at least 0.4 … 0.9: recall and refused faithful texts")
    for where, cases in sets.items():
        made = [Case(case.original, text) for case in cases if (text := judge.without_rarest(case)) is not None]
        for name, weight in weights.items():
            bad, clean = judge.shares(made, weight), judge.shares(cases, weight)
            line = [f"{(bad < t).mean():.3f} {(clean < t).mean():.3f}" for t in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
            print(f"    {where:9} {name:15} n {len(made):5}: " + " | ".join(line))


def _hallucinated(scene, rng, text):
    """The text with a shape or colour that the scene does not show, or a thing more."""
    colours = [c for c in words.COLOURS if c not in scene.concepts and c != "gray"]
    shapes = [s for s in words.SHAPES if s not in scene.concepts]
    first, colour, shape = scene.items[0], scenes.pick(rng, colours), scenes.pick(rng, shapes)
    return {
        "other colour": text.replace(f"{first.colour} {first.shape}", f"{colour} {first.shape}"),
        "other shape": text.replace(f"{first.colour} {first.shape}", f"{first.colour} {shape}"),
        "a thing more": f"{text} and a {colour} {shape}",
    }


def clip_table(count):
    """Things that the picture does not show, by margin. Both scores have the scale of the model: the demo's was trained on
    such scenes, and tells them apart as a general model would not."""
    from curate.models.clip_model import load_encoder
    from curate.signals.clip import Clip

    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder(Clip(model=restore(Path(folder))))
    rng = np.random.default_rng(SEED)
    pictures, texts = [], []
    while len(pictures) < count:
        scene = scenes.compose(rng, 240, 240)
        fields = samples.caption_fields(scene, rng)
        original = "{a_all} on {ground}".format_map(fields)
        faithful = "The picture shows {relation} on {a_ground} background.".format_map(fields)
        made = _hallucinated(scene, rng, faithful)
        if faithful not in made.values():
            pictures.append(encoder.view(draw(scene, rng)))
            texts.append([original, faithful, samples.caption(scene, rng), *made.values()])
    images = np.concatenate([encoder.encode_images(pictures[i : i + 32]) for i in range(0, len(pictures), 32)])
    kinds = ("original", "faithful", "any true caption", "other colour", "other shape", "a thing more")
    scored = {kind: encoder.score_words(images, [row[i] for row in texts]) for i, kind in enumerate(kinds)}
    cosines = {
        kind: (images * encoder.encode_texts([row[i] for row in texts]).embeddings).sum(1)
        for i, kind in enumerate(kinds)
    }
    f_scores = {kind: np.array([s.f_clipscore for s in found]) for kind, found in scored.items()}
    for name, values, margins in (
        ("clip_score", cosines, (0.0, 0.02, 0.03, 0.05, 0.1, 0.15)),
        ("f_clipscore", f_scores, (0.0, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 5e-3)),
    ):
        print(f"\n  {name}, n {count} of each; mean {', '.join(f'{k} {v.mean():.5f}' for k, v in values.items())}")
        for margin in margins:
            given = {kind: Scores(pa.array(v), pa.array(values["original"])) for kind, v in values.items()}
            line = {kind: falls(scores, margin).mean() for kind, scores in given.items() if kind != "original"}
            print(f"    margin {margin:<7}: refused " + ", ".join(f"{kind} {rate:.3f}" for kind, rate in line.items()))


def speed_table(captions):
    """Texts per CPU second, of the gates that look at texts alone: near rewrites, and texts that share no word."""
    rng = random.Random(SEED)
    for name, texts in (
        ("rewrites by rules", [rewrite(caption, rng) for caption in captions]),
        ("other captions", [captions[-1], *captions[:-1]]),
    ):
        columns = pa.array(texts), pa.array(captions)
        examples = [side for pair in read_pairs()[:16] for side in pair]
        given = Candidates(Rewrite.relation, *columns, prompts=[read_prompt()], examples=examples)
        run_gates(given, DEFAULTS)
        best = float("inf")
        for _ in range(3):
            for cached in (names.read_names, names.hold_names, numerals.read_numbers):
                cached.cache_clear()
            began = time.process_time()
            run_gates(given, DEFAULTS)
            best = min(best, time.process_time() - began)
        print(f"  {name:18} {len(texts) / best:9,.0f} texts a CPU second")


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clip", action="store_true", help="also draw and score the demo's scenes")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--show", type=int, default=0, help="1: refused faithful texts, 2: missed faults too")
    options = parser.parse_args()
    rows = pq.read_table(options.data / "laion_urls_10k.parquet")["TEXT"].to_pylist()
    captions = [row for row in rows if row]
    rng = random.Random(SEED)
    sets = {
        "real": real_cases(captions, 1500, rng),
        "seen": marked_cases(rows, "seen", rng),
        "unseen": marked_cases(rows, "unseen", rng),
        "demo": demo_cases(1000, rng),
        "shorter": marked_cases(rows, "seen", rng, short=True) + marked_cases(rows, "unseen", rng, short=True),
        "pairs": [Case(*pair) for pair in read_pairs()],
    }
    print(f"gates, as they are by default: {DEFAULTS}")
    faults_table(sets, rng, options.show)
    languages_table(options.data, rng)
    entries_table(ByEntries(options.data, captions), {name: sets[name] for name in ("real", "pairs")})
    if options.clip:
        clip_table(options.scenes)
    print("\n  speed")
    speed_table(captions)


if __name__ == "__main__":
    main()
