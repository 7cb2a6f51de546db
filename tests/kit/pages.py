"""The pages of the project, their blocks of code, and a runner of the blocks.

A comment directly before a block says how tests treat it:

- `<!-- not run: REASON -->` leaves the block out;
- `<!-- test: NAME -->` first prepares the folder (see `SETUPS`);
- `<!-- status: N -->` expects exit status N from the block's last command.

A block of YAML that begins with `# NAME.yaml` is written to that file. A block without a language is output: all its lines must
have been printed since the output before it. `UID` is the uid of a sample that the run dropped.
"""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from curate.api import Run
from curate.cli.demo import _write_recipe
from curate.demo.pool import write_pool
from tests import kit
from tests.kit import forked, llm_server
from tests.kit.articles import ARTICLES, write_folders
from tests.kit.crawls import draw_sites, info, pack, wat_records
from tests.kit.web import Web, running
from tests.recipe.reference import PAGES as REFERENCE

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "curate/publish/card.md"
TOP = [ROOT / "README.md", ROOT / ".github/CONTRIBUTING.md"]
PAGES = sorted(TOP + [page for top in ("curate", "pipelines", "sql", "infra") for page in (ROOT / top).rglob("*.md")])
PAGES.remove(TEMPLATE)


class Block(NamedTuple):
    """A block of code, with the marks in the comments before it, by name."""

    language: str
    text: str
    marks: dict

    @property
    def is_command(self):
        return self.language in ("sh", "python")

    @property
    def is_run(self):
        return "not run" not in self.marks


def read_blocks(page):
    marks = {}
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block":
            marks |= dict(re.findall(r"<!-- (not run|test|status): (.*?) -->", token.content))
            continue
        if token.type == "fence":
            yield Block(token.info, token.content, marks)
        marks = {}


def read_recipes():
    """The recipes of all pages but the reference of keys, which has tests of its own."""
    blocks = [block for page in PAGES if page not in REFERENCE for block in read_blocks(page)]
    recipes = [block.text for block in blocks if block.language == "yaml" and block.is_run]
    return [text for text in recipes if re.search("^input:", text, re.MULTILINE)]


def read_commands(text):
    """The commands of a block, without comments."""
    lines = [re.sub(r"(^|\s+)#.*", "", line) for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


class PageRun:
    """Runs the blocks of a page, in order, in one folder. `finished_run` returns a folder that `make_run` has filled."""

    def __init__(self, folder, finished_run):
        self.folder, self.finished_run = folder, finished_run
        self.printed = ""
        self.replacements = {}  # in recipes
        self.cleanup = ExitStack()

    def run(self, page):
        self.page = page
        with self.cleanup:
            self.run_blocks(page)

    def run_blocks(self, page):
        has_run = False  # the commands before a block of output
        for block in read_blocks(page):
            if "test" in block.marks:
                SETUPS[block.marks["test"]](self)
            if block.is_command:
                has_run = block.is_run
            if block.is_command and block.is_run:
                self.run_block(block)
            elif block.language == "yaml":
                self.write_recipe(block)
            elif block.language == "" and has_run:
                self.compare(block)

    def run_block(self, block):
        if block.language == "python":
            self.check(self.run_process(sys.executable, "-c", block.text), block.text, 0)
            return
        *commands, last = read_commands(block.text)
        for command in commands:
            self.check(self.run_command(command), command, 0)
        self.check(self.run_command(last), last, int(block.marks.get("status", 0)))

    def run_command(self, command):
        words = shlex.split(command)
        if words[0] != "curate":
            return self.run_process("bash", "-ec", command)
        if ">" in words:
            *words, _, file = words
            done = forked.run(*words[1:], cwd=self.folder)
            (self.folder / file).write_text(done.stdout)
            return done
        return forked.run(*[self.find_uid(words[2]) if word == "UID" else word for word in words[1:]], cwd=self.folder)

    def run_process(self, *words):
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)

    def find_uid(self, run):
        sql = "SELECT uid FROM verdicts WHERE rule IS NOT NULL AND rule != 'failed' LIMIT 1"
        return str(Run(str(self.folder / run)).sql(sql)["uid"][0])

    def check(self, done, command, status):
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        self.printed += done.stdout + done.stderr

    def compare(self, block):
        missing = [line for line in block.text.splitlines() if line not in self.printed]
        assert not missing, f"not printed: {missing}\n{self.printed}"
        self.printed = ""

    def write_recipe(self, block):
        if name := re.match(r"# ([\w.]+\.yaml)", block.text):
            text = block.text
            for old, new in self.replacements.items():
                text = text.replace(old, new)
            (self.folder / name[1]).write_text(text)


def make_run(folder):
    """The demo's pool and recipe, and the finished run `run1`."""
    write_pool(str(folder / "pool"), samples=2000, seed=0, shards=4)
    _write_recipe(str(folder), str(folder / "recipe.yaml"))
    done = forked.run("run", "recipe.yaml", "--out", "run1", cwd=folder)
    assert done.returncode == 0, done.stderr


def copy_run(page):
    shutil.copytree(page.finished_run(), page.folder, dirs_exist_ok=True)


def write_photos(page):
    """Images in a folder, one of them too small, with a table of captions among them."""
    folder = page.folder / "photos"
    folder.mkdir()
    scenes = ["house", "garden", "snow", "rain"]
    for i, side in enumerate([300, 256, 240, 40]):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, 300, 3), np.uint8)).save(folder / f"{i}.jpg")
    rows = "".join(f"{i}.jpg,a red dog in the {scene}\n" for i, scene in enumerate(scenes))
    (folder / "captions.csv").write_text(f"filename,caption\n{rows}")


def write_articles(page):
    write_folders(page.folder / "pmc", ARTICLES[:2])


def write_datacomp(page):
    """DataComp's metadata of two rows, one of which is too small."""
    folder = page.folder / "datacomp_small/metadata"
    folder.mkdir(parents=True)
    texts, sides = ["a red dog sleeps in the garden", "a cat sits on the wall"], [400, 100]
    columns = {"uid": ["0" * 31 + "1", "0" * 31 + "2"], "url": ["http://a.example/1.jpg", "http://a.example/2.jpg"]}
    columns |= {"text": texts, "original_width": sides, "original_height": sides}
    columns |= {f"clip_{model}_similarity_score": [0.3, 0.2] for model in ("b32", "l14")}
    pq.write_table(pa.table(columns), folder / "0.parquet")


def write_wikipedia(page):
    """What `curate metadata build` reads, for German and Japanese, with two articles each."""
    texts = {"de": ["Der Hund schläft im Garten.", "Ein Hund und eine Katze."], "ja": ["犬は東京にいる。", "猫と犬。"]}
    for language, articles in texts.items():
        folder = page.folder / f"20231101.{language}"
        folder.mkdir()
        pq.write_table(pa.table({"title": ["Hund", "Tier"], "text": articles}), folder / "train-00000.parquet")
    (page.folder / "views").mkdir()
    views = gzip.compress(b"de Hund 90 0\nja Inu 80 0\n")
    (page.folder / "views/pageviews-20260101-000000.gz").write_bytes(views)
    (page.folder / "omw-1.4").mkdir()
    (page.folder / "omw-1.4/wn-data-jpn.tab").write_text("# Japanese\n1-n\tlemma\t犬\n")


def write_crawl(page):
    records = [record for number, site in enumerate(draw_sites(3)) for record in wat_records(site, number)]
    pack(page.folder / "CC-MAIN-00000.warc.wat.gz", [info("a.wat.gz"), *records])
    (page.folder / "metadata.json").write_text(json.dumps(["a", "dog", "house", "photo"]))


def serve_urls(page):
    """A list of 60 URLs of servers on this machine, which the page's recipes may then contact; every seventh image is gone."""
    pytest.importorskip("img2dataset")
    web = page.cleanup.enter_context(running(Web({str(i): kit.encode(kit.picture(i, 240)) for i in range(60)}, 4)))
    urls = [web.url(f"{'image' if i % 7 else 'gone'}/{i}", i % 4) for i in range(60)]
    texts = [f"a red dog sleeps in the garden of house number {i}" for i in range(60)]
    (page.folder / "list").mkdir()
    pq.write_table(pa.table({"url": urls, "caption": texts}), page.folder / "list.parquet")
    table = pa.table({"URL": urls, "TEXT": texts, "similarity": [i / 60 for i in range(60)]})
    pq.write_table(table, page.folder / "list/0.parquet")
    (page.folder / "metadata.json").write_text(json.dumps(["dog", "garden"]))
    contact = "contact: you@example.org"
    page.replacements[contact] = f"{contact}, allow_networks: [127.0.0.0/8]"


def serve_judge(page):
    """The run `run1`, a model that answers yes, and the page's template."""
    copy_run(page)
    page.cleanup.enter_context(mock.patch.object(llm_server, "echo", lambda text: "Yes."))
    server = page.cleanup.enter_context(llm_server.FaultServer(models=["my-vlm"]))
    page.replacements["http://localhost:8000/v1"] = server.base_url
    [template] = [block.text for block in read_blocks(page.page) if "Answer yes or no" in block.text]
    (page.folder / "judge.txt").write_text(template)


SETUPS = {
    "crawl": write_crawl,
    "urls": serve_urls,
    "judge": serve_judge,
    "wikipedia": write_wikipedia,
    "datacomp": write_datacomp,
    "run1": copy_run,
    "photos": write_photos,
    "articles": write_articles,
}
