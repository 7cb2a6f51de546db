import os
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.pool.formats import parquet


def test_footer_is_not_kept_for_a_file_that_came_between(tmp_path, monkeypatch: pytest.MonkeyPatch):
    path, other = str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")
    pq.write_table(pa.table({"n": [1]}), path)
    pq.write_table(pa.table({"n": [1, 2, 3]}), other)
    os_file = pa.OSFile

    def replaced_once_open(name):
        opened = os_file(name)
        if os.path.exists(other):
            os.replace(other, name)
        return opened

    monkeypatch.setattr(parquet.pa, "OSFile", replaced_once_open)
    source, part = SimpleNamespace(storage={}), SimpleNamespace(path=path)
    rows = []
    for _ in range(2):
        with parquet._opened(source, part) as file:
            rows.append(file.metadata.num_rows)
    assert rows == [1, 3]
