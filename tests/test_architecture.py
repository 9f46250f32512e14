"""The house: imports go down only, and the table of floors in the docs is the truth."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fanfold"


def floors() -> dict[str, int]:
    text = (ROOT / "docs/design/architecture.md").read_text()
    table = re.search(r"```floors\n(.*?)```", text, re.DOTALL).group(1)
    rows = re.findall(r"floor (\d)\s+(.*)", table)
    return {unit: int(number) for number, units in rows for unit in units.split()}


def unit_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "fanfold" and len(parts) > 1 else None


def imports() -> list[tuple[str, str, str]]:
    """(unit, imported unit, where) of every import in the package, late ones included."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        unit = relative.parts[0].removesuffix(".py")
        if unit in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative}: relative import"
                names = [node.module]
            for name in names:
                if name == "fanfold":
                    assert unit in ("cli", "testing"), f"{relative} imports the package root"
                elif unit_of(name):
                    found.append((unit, unit_of(name), f"{relative}:{node.lineno}"))
    return found


def test_every_unit_has_a_floor():
    """A unit of the package stands in the table of floors, and the table names no other."""
    units = {
        path.name.removesuffix(".py")
        for path in SOURCE.iterdir()
        if path.name not in ("__init__.py", "__main__.py", "py.typed", "__pycache__")
    }
    assert units == set(floors())


def test_imports_go_down_only():
    """A unit imports lower floors, itself, or, between single modules, its own floor."""
    level = floors()
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    wrong = []
    for unit, target, where in imports():
        same_floor = level[unit] == level[target] and not {unit, target} & folders
        if unit != target and level[target] >= level[unit] and not same_floor:
            wrong.append(f"{where}: {unit} imports {target}")
    assert wrong == []


def test_no_cycles_between_units():
    """No unit reaches itself through imports."""
    graph: dict[str, set[str]] = {}
    for unit, target, _ in imports():
        if unit != target:
            graph.setdefault(unit, set()).add(target)

    def reached(unit: str, seen: set[str]) -> set[str]:
        for target in graph.get(unit, ()):
            if target not in seen:
                reached(target, seen | {target})
                seen.add(target)
        return seen

    assert [unit for unit in graph if unit in reached(unit, set())] == []
