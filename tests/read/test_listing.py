import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError, RunError
from curate.read.listing import check_state, expand_braces, file_state, fingerprints_beside, list_files, list_source
from curate.recipe.source import Source


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(files):
    return [file.path.rpartition("/")[2] for file in files]


def refusal(*paths):
    with pytest.raises(RecipeError) as caught:
        list_files(paths, {})
    return str(caught.value)


BRACES = {
    "a.tar": "a.tar", "{0..3}": "0 1 2 3", "{5..5}": "5", "{00..03}.tar": "00.tar 01.tar 02.tar 03.tar",
    "{008..011}": "008 009 010 011", "{8..11}": "8 9 10 11", "{98..101}": "98 99 100 101", "{10..12}": "10 11 12",
    "{a,bc,}x": "ax bcx x", "p{0..1}{x,y}": "p0x p0y p1x p1y", "open{0..1": "open{0..1", "close0..1}": "close0..1}",
    "{b,a}/{00..01}.{tar,t}": "b/00.tar b/00.t b/01.tar b/01.t a/00.tar a/00.t a/01.tar a/01.t",
    "{0..1}-{0..1}-{0..1}": "0-0-0 0-0-1 0-1-0 0-1-1 1-0-0 1-0-1 1-1-0 1-1-1",
}  # fmt: skip
WRONG = "{5..3} {} {x} {a..c} {-1..2} {0..3..2} {0..} {0..99999999} {a,{b,c}} {{0..1}} {x{0..1}"


def test_braces():
    for path, expected in BRACES.items():
        assert expand_braces(path) == expected.split()
    for path in WRONG.split():
        with pytest.raises(RecipeError, match=r"^pool/a.*(\{00000..00099\}|\{a,b\})"):
            expand_braces(f"pool/a{path}.tar")


BILLIONS = [
    (["{0..1000000000}"], "1,000,000,001"), (["{0..9999999999999999999}"], "10,000,000,000,000,000,000"),
    (["{0..9}x{0..9999999}x{0..99999}"], "100,000,000"), (["{0..9999}{0..9}{0..9}{0..9}{0..9}"], "100,000,000"),
    (["{a,b}" * 2000], "16,777,216"), ([f"{{0..{'9' * 99}}}"], f"1{',000' * 33}"),
    (["{0..10}", "{0..999999999}"], "1,000,000,000"),
]  # fmt: skip


def test_ranges_of_a_billion(monkeypatch):
    """They are counted, not made."""
    for paths, names in BILLIONS:
        with pytest.raises(RecipeError, match=f"names {names} files; accepted: at most 10,000,000"):
            list_files(tuple(f"/pool/{path}.tar" for path in paths), {})
    monkeypatch.setattr("curate.read.listing.MAX_NAMES", 10)
    with pytest.raises(RecipeError, match=r"names 12 files; accepted: at most 10, in all paths together"):
        list_files(("/pool/{0..5}.tar", "/pool/{6..11}.tar"), {})
    assert expand_braces("{1..1}" * 2000) == ["1" * 2000]


def test_names_that_are_no_utf8(tmp_path):
    (tmp_path / "a\udcff.tar").write_bytes(b"")
    for path in ("*.tar", "a\udcff.tar"):
        with pytest.raises(RecipeError, match=r"a\\udcff.tar: its name is not UTF-8"):
            list_files((f"{tmp_path}/{path}",), {})


@given(st.integers(0, 300), st.integers(0, 30), st.integers(1, 5))
def test_padding_is_kept(first, more, width):
    last = first + more
    low, high = str(first).zfill(width), str(last).zfill(width)
    expected = [str(n).zfill(width if low.startswith("0") else 0) for n in range(first, last + 1)]
    assert expand_braces(f"a{{{low}..{high}}}b") == [f"a{n}b" for n in expected]


def test_ranges_keep_their_order_and_globs_are_sorted(tmp_path):
    touch(tmp_path, "10.md", "9.md", "x.md")
    found = list_files((f"{tmp_path}/{{9..10}}.md", f"{tmp_path}/x.md"), {})
    assert names(found) == ["9.md", "10.md", "x.md"] and [file.size for file in found] == [4, 5, 4]
    assert found[0].path == f"{tmp_path}/9.md"
    assert list_files((f"file://{tmp_path}/x.md",), {})[0].path == f"file://{tmp_path}/x.md"
    touch(tmp_path, "c.tar", "a.tar", "b.tar", "x.txt", "d/a.tar")
    assert names(list_files((f"{tmp_path}/*.tar",), {})) == ["a.tar", "b.tar", "c.tar"]
    assert names(list_files((f"{tmp_path}/[bc].tar",), {})) == ["b.tar", "c.tar"]
    assert names(list_files((f"{tmp_path}/?.t{{xt,ar}}",), {})) == ["x.txt", "a.tar", "b.tar", "c.tar"]
    assert len(list_files((f"{tmp_path}/**/*.tar",), {})) == 4
    assert len(list_files((f"{tmp_path}/**",), {})) == 8


@pytest.mark.parametrize("path", ["*.tar", "**/*.tar"])
def test_what_a_glob_finds_and_is_no_file_has_a_fault(tmp_path, path):
    touch(tmp_path, "a.tar")
    (tmp_path / "b.tar").symlink_to("a.tar")
    links = {"gone.tar": "nowhere", "itself.tar": "itself.tar", "linked.tar": "folder.tar"}
    faults = {name: f"a link to '{target}', which is not a file" for name, target in links.items()}
    faults |= {"folder.tar": "a folder", "pipe.tar": "not a regular file"}
    (tmp_path / "folder.tar").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.tar")
    source = Source(name="pool", format="webdataset", path=f"{tmp_path}/{path}")
    for content in (False, True):
        files = list_source(source, content)
        found = {file.path.rpartition("/")[2]: file.fault for file in files if file.fault}
        assert found == {name: ("not_a_file", detail) for name, detail in faults.items()}
        assert [file.path.rpartition("/")[2] for file in files if not file.fault] == ["a.tar", "b.tar"]
    refused = refusal(f"{tmp_path}/{path}")  # where there are no `failures`, as of joins and exemplars
    assert refused.startswith(f"{tmp_path}/folder.tar: is a folder; remove it")


def test_a_missing_file_of_a_range_is_named_with_the_count(tmp_path):
    touch(tmp_path, *(f"{n:02d}.tar" for n in range(10) if n not in (3, 7, 8)))
    message = refusal(f"{tmp_path}/{{00..09}}.tar")
    assert f"{tmp_path}/03.tar and 2 more" in message and "7 of the 10 named exist" in message
    assert refusal(f"{tmp_path}/none.tar").startswith(f"{tmp_path}/none.tar: no such file")


def test_an_empty_glob_and_a_folder(tmp_path):
    touch(tmp_path, "a.txt")
    (tmp_path / "folder.tar").mkdir()
    assert "no file matches" in refusal(f"{tmp_path}/*.tar")
    assert f"no file matches {tmp_path}/y*.txt" in refusal(f"{tmp_path}/{{a,y}}*.txt")
    message = refusal(f"{tmp_path}/")
    assert "is a folder" in message and f"{tmp_path}/*.tar" in message


def test_a_file_listed_twice(tmp_path):
    touch(tmp_path, "a.tar", "b.tar")
    for second in ("a.tar", "./a.tar", "*.tar", "{a,b}.tar"):
        assert f"{tmp_path}/a.tar: is listed twice" in refusal(f"{tmp_path}/a.tar", f"{tmp_path}/{second}")


def test_memory_urls():
    fs = fsspec.filesystem("memory")
    for n in range(3):
        fs.pipe(f"/listing/{n:02d}.tar", bytes(n + 1))
    ranged = list_files(("memory://listing/{00..02}.tar",), {})
    assert [file.size for file in ranged] == [1, 2, 3]
    assert [file.path for file in list_files(("memory://listing/*.tar",), {})] == [file.path for file in ranged]
    for file in ranged:
        with fsspec.open(file.path) as opened:
            assert len(opened.read()) == file.size
    assert "memory://listing/03.tar" in refusal("memory://listing/{02..03}.tar")


class _Answers(SimpleHTTPRequestHandler):
    """A number in a file's name is the status; get.tar has status 503 if it is read, and none.tar has no size."""

    def do_GET(self):
        self.do_HEAD(503 if "get" in self.path else 200)

    def do_HEAD(self, status=200):
        found = re.search(r"\d{3}", self.path)
        self.send_response(int(found[0]) if found else status)
        if "none" not in self.path:
            self.send_header("Content-Length", "100" if self.command == "HEAD" else "0")
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_statuses_of_a_server(url):
    """A file that the server does not give now is neither missing nor no file."""
    assert names(list_files((f"{url}/{{a,get}}.tar",), {})) == ["a.tar", "get.tar"]
    assert f"{url}/404.tar: no such file" in refusal(f"{url}/{{a,404}}.tar")
    for status, kind in ((503, OSError), (403, PermissionError)):
        with pytest.raises(kind, match=f"{url}/{status}.tar: {status}, message="):
            list_files((f"{url}/{{a,{status}}}.tar",), {})
    assert fingerprints_beside([f"{url}/404.parquet", f"{url}/403.parquet"], {}, False) == {}
    with pytest.raises(OSError, match="503"):
        file_state(f"{url}/503.tar", {})
    with fsspec.open(f"{url}/get.tar", "rb") as opened, pytest.raises(OSError, match="503"):
        opened.read(10)
    with pytest.raises(OSError, match="Cannot connect"):
        list_files(("http://127.0.0.1:1/a.tar",), {})
    [file] = list_source(Source(name="pool", format="webdataset", path=f"{url}/none.tar"), False)
    assert file.fault == ("unreadable", "without a size, because the server sends no Content-Length")


def test_fingerprints(tmp_path):
    """They change with the time; those of contents with the content only."""
    (tmp_path / "a").write_bytes(b"x" * (5 << 20))
    (tmp_path / "b").write_bytes(b"x" * (5 << 20))
    (tmp_path / "c").write_bytes(b"x" * ((5 << 20) - 1) + b"y")
    before = list_files((f"{tmp_path}/b",), {})
    assert list_files((f"{tmp_path}/b",), {}) == before
    os.utime(tmp_path / "b", ns=(1, 1))
    assert list_files((f"{tmp_path}/b",), {})[0].fingerprint != before[0].fingerprint
    a, b, c = (file.fingerprint for file in list_files((f"{tmp_path}/{{a,b,c}}",), {}, content=True))
    assert a == b != c
    assert a.startswith("xxh3:")
    fsspec.filesystem("memory").pipe("/listing/x", b"x" * (5 << 20))
    assert list_files(("memory://listing/x",), {}, content=True)[0].fingerprint == a


def test_a_changed_file_is_told(tmp_path):
    """By size and time; where the stamp is of the content, by that."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    (stamped,) = list_files((str(path),), {}, content=True)
    state = file_state(str(path), {})
    check_state(str(path), {}, state)
    os.utime(path, ns=(1, 1))
    with pytest.raises(RunError, match="/a: the file changed during the run"):
        check_state(str(path), {}, state)
    check_state(str(path), {}, state, stamped.fingerprint)
    path.write_bytes(b"y" * 10)
    with pytest.raises(RunError, match="changed"):
        check_state(str(path), {}, state, stamped.fingerprint)
    path.unlink()
    with pytest.raises(RunError, match="now it is deleted"):
        check_state(str(path), {}, state, stamped.fingerprint)
