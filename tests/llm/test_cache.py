"""A process keeps the index of a run's answers until the run changes."""

from curate.llm.cache import answer_table, load_index
from curate.llm.engine import Answer, Request
from curate.store.layout import RUN_FILE, table_file, unit_parts
from curate.store.store import RunStore


def test_the_index_follows_the_run(tmp_path):
    store = RunStore(str(tmp_path / "run"))
    requests = [Request(f"{i:032x}", "rewrite", "human", 0, prompt="a") for i in range(4)]
    digests = [request.digest("tiny") for request in requests]
    answers = [Answer("a cat"), Answer(None, "busy: 429"), Answer("a dog"), Answer("a fish")]
    store.write_json(RUN_FILE, {"started": 1})
    store.write_parquet(table_file("answers", 3), answer_table(requests[:2], digests[:2], answers[:2]))
    store.write_parquet(
        f"{unit_parts('answers', 4)}/000000.parquet", answer_table(requests[2:3], digests[2:3], answers[2:3])
    )
    first = load_index(store)
    assert first.holds(digests).tolist() == [True, False, True, False]
    assert dict(first.find(digests)).keys() == {"tables/answers/00003.parquet", "parts/answers/00004/000000.parquet"}
    assert load_index(store) is first
    store.write_parquet(table_file("answers", 5), answer_table(requests[3:], digests[3:], answers[3:]))
    store.write_json(RUN_FILE, {"started": 1, "finished": 2})
    assert load_index(store).holds(digests).tolist() == [True, False, True, True]
