"""What the threads of a process share."""

import threading

import pytest

from curate.process import Lazy


def test_lazy_loads_once() -> None:
    loads: list[int] = []
    lazy = Lazy(lambda: loads.append(1) or [len(loads)])
    assert not loads
    for _ in range(2):
        with lazy.use() as loaded:
            assert loaded == [1]


def test_lazy_is_used_by_one_thread_at_a_time() -> None:
    lazy = Lazy(list[str])

    def use(name: str) -> None:
        with lazy.use() as seen:
            seen.append(name)

    with lazy.use() as seen:
        other = threading.Thread(target=use, args=("other",))
        other.start()
        other.join(0.05)
        assert seen == []
    other.join()
    with lazy.use() as seen:
        assert seen == ["other"]


def test_lazy_loads_again_after_a_failure() -> None:
    attempts: list[str] = []

    def load() -> str:
        attempts.append("")
        if len(attempts) == 1:
            raise OSError("no network")
        return "model"

    lazy = Lazy(load)
    with pytest.raises(OSError, match="no network"), lazy.use():
        pass
    with lazy.use() as loaded:
        assert loaded == "model"
