"""Draws the rooms of the code, who imports whom, and the tree of modules, into docs/architecture.md:
`python docs/draw_rooms.py`.

A room is a package of `engine` or `app`, or a module beside them. Arrows that follow from others are left out: where a
imports b and b imports c, an arrow from a to c says nothing new of the order.
"""

import ast
import re
from itertools import permutations
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BELOW_ALL = {"engine.config", "engine.errors", "engine.vocabulary", "engine.provenance"}
"""What nearly everything imports: named in the text, not drawn."""


def arrows() -> list[tuple[str, str]]:
    """(importer, imported) of all rooms, without what follows from others."""
    graph = grimp.build_graph("engine", "app")
    rooms = {room for package in ("engine", "app") for room in graph.find_children(package)} - BELOW_ALL
    room_of = {module: room for room in rooms for module in (room, *graph.find_descendants(room))}
    direct = {
        (room_of[importer], room_of[imported])
        for importer in room_of
        for imported in graph.find_modules_directly_imported_by(importer) & room_of.keys()
        if room_of[importer] != room_of[imported]
    }
    reached = {room: {room} for room in rooms}
    for _ in rooms:
        for a, b in direct:
            reached[a] |= reached[b]
    follows = {(a, c) for a, b, c in permutations(rooms, 3) if (a, b) in direct and c in reached[b]}
    return sorted(direct - follows)


def picture() -> str:
    """The arrows as a Mermaid flowchart, which GitHub draws."""
    lines = [f"    {a} --> {b}" for a, b in arrows()]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def tree() -> str:
    """Every module of ours with the first sentence of its docstring."""
    lines = []
    for path in sorted(path for package in ("engine", "app") for path in (ROOT / package).rglob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        paragraph = " ".join(docstring.partition("\n\n")[0].split())
        sentence = re.split(r"(?<=[.:?!])\s(?=[A-Z`])", paragraph)[0].rstrip(".:")
        name = path.relative_to(ROOT).as_posix().removesuffix("/__init__.py")
        lines.append(f"* `{name}{'/' if path.name == '__init__.py' else ''}` {sentence}")
    return "\n".join([*lines, ""])


def page() -> str:
    """The page with the picture and the tree of today."""
    text = PAGE.read_text(encoding="utf-8")
    for name, drawing in (("rooms", picture()), ("tree", tree())):
        begin, end = f"<!-- {name}: python docs/draw_rooms.py -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + drawing + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
