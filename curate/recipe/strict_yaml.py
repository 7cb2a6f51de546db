"""Reads YAML from anyone as plain data, within limits.

Input: text. Output: dicts, lists, and scalars of limited size and depth, with aliases and merge keys resolved. PyYAML
accepts some mistakes silently, and raises other errors for some. For these, this raises `yaml.YAMLError`.
"""

import re
from typing import Any

import yaml

from curate.base.wording import one_line

MAX_CHARACTERS = 4 << 20  # maximum characters in the text, also after aliases are resolved
MAX_DEPTH = 100
_MAX_NODES = 200_000  # values and keys: this many take about ten seconds
_MAX_NUMBER = 100  # characters: longer numbers are slow to read, and cannot be printed
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_PLAIN = ("binary", "set", "omap", "pairs")  # recipes are stored as JSON, which has none of these types


def load_yaml(text: str) -> Any:
    """Return the only document in a text, as plain data.

    Raises yaml.YAMLError if it is invalid; if it has a key twice, a scalar that contradicts its tag, or half a
    surrogate pair; or if it is too large or nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters; accepted: at most {MAX_CHARACTERS:,}")
    return yaml.load(text, Loader=_Loader)


def say_yaml_error(error: yaml.YAMLError) -> str:
    """Return one line that says what is wrong in a YAML text, and where."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return one_line(error)
    where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    begun = f" ({error.context}, line {error.context_mark.line + 1})" if error.context and error.context_mark else ""
    return one_line(f"{error.problem}, {where}{begun}")


def find_surrogate(text: str) -> str | None:
    """Return the first lone surrogate in a text, escaped, or None. UTF-8 cannot encode surrogates."""
    match = _SURROGATE.search(text)
    return f"\\u{ord(match[0]):04x}" if match else None


def _refusal(reason: str, mark: yaml.Mark, accepted: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"{reason}, line {mark.line + 1}; accepted: {accepted}")


_BOOL, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """Measures each node when PyYAML composes it, before PyYAML builds any value from it."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # characters and depth of a node, with aliases resolved

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node.

        Raises yaml.YAMLError if it is too large, nested too deeply, or an alias of its own parent.
        """
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        if self._nodes > _MAX_NODES:
            raise _refusal("too many keys and values", event.start_mark, f"at most {_MAX_NODES:,}")
        if self._depth > MAX_DEPTH:
            raise _refusal("the value is nested too deeply", event.start_mark, f"at most {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent) and node is not None:
            self._sizes[node] = self._measure(node)
        elif node not in self._sizes:
            alias = "an alias is inside the value that it names"
            raise _refusal(alias, event.start_mark, "aliases of earlier values")
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            if half := find_surrogate(node.value):
                raise _refusal(f"{half} is half of a surrogate pair", node.start_mark, "text that UTF-8 can represent")
            return 1 + len(node.value), 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inner = [item for pair in node.value for item in pair]
        else:
            inner = node.value
        sizes = [self._sizes[item] for item in inner]
        characters = 1 + sum(size for size, _ in sizes)
        depth = 1 + max((depth for _, depth in sizes), default=0)
        if characters > MAX_CHARACTERS or depth > MAX_DEPTH:
            problem = "with its aliases expanded, the value is too long or nested too deeply"
            limits = f"at most {MAX_CHARACTERS:,} characters, and {MAX_DEPTH} levels"
            raise _refusal(problem, node.start_mark, limits)
        return characters, depth

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node. Raises yaml.YAMLError if the value contradicts the node's tag."""
        kind, mark = node.tag.rpartition(":")[2], node.start_mark
        if kind in ("int", "float") and len(node.value) > _MAX_NUMBER:
            raise _refusal(f"a number has {len(node.value):,} characters", mark, f"at most {_MAX_NUMBER}")
        if kind in _NOT_PLAIN:
            raise _refusal(f"a value has the type {kind}", mark, "mappings, lists, text, numbers, and dates")
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise yaml.YAMLError(f"{str(node.value)[:80]!r} is not of the type {kind}, line {mark.line + 1}") from None


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise yaml.YAMLError if a key is not a scalar, or occurs twice, which YAML itself accepts silently."""
    seen = set()
    for key_node, _ in node.value:
        key = key_node.value
        if not isinstance(key, str):
            raise yaml.YAMLError(f"a list or mapping cannot be a key, line {key_node.start_mark.line + 1}")
        if key in seen:
            raise yaml.YAMLError(f"key {key!r} occurs twice, line {key_node.start_mark.line + 1}")
        seen.add(key)
        if key_node.tag == _BOOL:  # YAML 1.1 reads `off` as a boolean, but it is a key in `captions.gates`
            key_node.tag = _TEXT
