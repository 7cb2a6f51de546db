"""How the house is laid: rooms, the floors that they stand on, arrows between them, and lines.

    python -m tests.bench.bench_house [CHECKOUT …]

A room is a folder of `curate/` or `pipelines/` with all below it, or a loose module. An arrow is a pair of rooms of which one imports the
other, a floor is one above all that a room on it imports. The last line counts folders without their subfolders, and circles of them.
"""

import ast
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def modules(root):
    """The modules of a checkout's product, by their dotted names."""
    files = [file for top in ("curate", "pipelines") for file in (root / top).rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file, known):
    """The product's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if (name := inner if inner in known else node.module) in known:
                    yield name


def top_room(name):
    """The folder of curate/ or pipelines/ that a module is in, or the module where it is loose."""
    return ".".join(name.split(".")[:2])


def arrows(known, room):
    """Each room with those that it imports."""
    found = defaultdict(set)
    for name, file in known.items():
        found[room(name)] |= {room(other) for other in imported(file, known)} - {room(name)}
    return found


def floors(graph):
    """How many floors the rooms stand on."""
    floor = {}
    try:
        for name in TopologicalSorter(graph).static_order():
            floor[name] = 1 + max((floor[other] for other in graph.get(name, ())), default=0)
    except CycleError as error:
        return f"no floors: {' → '.join(error.args[1])} is a circle"
    return max(floor.values())


def main(roots):
    """Print what there is of each checkout."""
    for root in map(Path, roots or ["."]):
        known = modules(root)
        top = arrows(known, top_room)
        deep = arrows(known, lambda name: str(known[name].parent) if known[name].parent.name != "curate" else name)  # noqa: B023
        texts = [file.read_text() for file in known.values()]
        lines = sum(text.count("\n") for text in texts)
        long = sum(len(line) > 120 for text in texts for line in text.splitlines())
        print(f"{root}: {len(known)} modules, {lines:,} lines, {long:,} of them over 120 columns")
        print(f"  {len(top)} rooms on {floors(top)} floors with {sum(map(len, top.values()))} arrows")
        print(
            f"  folders by themselves: {len(deep)} on {floors(deep)} floors with {sum(map(len, deep.values()))} arrows"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
