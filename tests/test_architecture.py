"""The laws of the house, read from its imports: floors, owners, purity, clocks, sizes and names.

Nothing is imported here; every module under gateway/ is parsed.  A module that no floor lists fails.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HOUSE = Path(__file__).parents[1] / "gateway"

FLOORS = (
    ("model", "events", "errors", "bounds", "limits"),
    ("policy", "dialect"),
    ("clock", "telemetry", "catalogue", "config"),
    ("upstream",),
    ("edge",),
    ("drill",),
    ("venue_routes", "routes", "assembly", "cli", "__main__"),
)
"""Files and folders of gateway/.  An import goes to a lower floor, to one earlier on the same floor, or stays home."""

STRANGERS = {("policy", "dialect"), ("dialect", "policy"), ("edge", "policy")}

OWNERS = {
    "Crypto": ("dialect.transactions", "drill.chain"),
    "click": ("__main__", "cli"),
    "httptools": ("upstream.connection", "edge.server"),
    "httpx2": ("upstream.httpx2_engine", "__main__", "cli"),
    "msgspec": ("dialect",),
    "opentelemetry": ("telemetry",),
    "prometheus_client": ("telemetry.metrics",),
    "pydantic": ("config",),
    "pydantic_core": ("config",),
    "rich": ("__main__", "cli"),
    "starlette": ("edge.pages",),
    "tenacity": ("upstream.sockets",),
    "uvicorn": ("edge.server", "edge.listener"),
    "uvloop": ("__main__", "assembly", "cli"),
    "watchfiles": ("config.watch",),
    "websockets": ("upstream.sockets", "upstream.socket_client", "edge.socket", "drill"),
    "yaml": ("config.yaml_nodes",),
}
"""Who may import a third-party package: these modules, or modules of these folders."""

PURE = ("policy", "dialect")
NOT_IN_PURE = {"asyncio", "time", "datetime", "random", "os", "logging", "socket"}
CHANCE_MAKERS = ("assembly", "__main__", "cli", "drill")  # where a random.Random is made
LOOP_CLOCKS = {
    "edge.server",
    "edge.listener",
    "edge.socket",
}  # compares instants of the event loop with each other, and with nothing else
REFUSED_NAMES = {"utils", "helpers", "common", "misc", "base", "core", "manager", "service"}
LONGEST_MODULE = 450
LONGEST_FUNCTION = 70


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and whether it is for types only."""

    target: str
    line: int
    typing_only: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One file.  `name` is its path below gateway/ with dots; a folder's `__init__` has the folder's name."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    imports: list[Import] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """The file or folder of gateway/ that it belongs to."""
        return self.name.split(".")[0]

    @property
    def folder(self) -> str:
        """The folder it lies in, empty for gateway/ itself."""
        return str(self.path.parent.relative_to(HOUSE)).strip(".")

    def at(self, line: int) -> str:
        return f"gateway/{self.path.relative_to(HOUSE)}:{line}"


@cache
def house() -> dict[str, Module]:
    """Every module, by name."""
    modules = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__") or "__init__"
        text = path.read_text()
        modules[name] = Module(name, path, text, ast.parse(text))
    for module in modules.values():
        module.imports.extend(imports_of(module, set(modules)))
    return modules


def imports_of(module: Module, names: set[str]) -> Iterator[Import]:
    """Everything imported, inside functions too.  Our own modules come without the leading `gateway.`."""
    typing_only = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.at(node.lineno)} imports relatively"
            origin = node.module or ""
            inside = [f"{origin}.{alias.name}" for alias in node.names]
            targets = [path if path.removeprefix("gateway.") in names else origin for path in inside]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(target, node.lineno, id(node) in typing_only)


def within(module: str, places: tuple[str, ...] | set[str]) -> bool:
    """Whether a module is one of these places or lies in one."""
    return any(module == place or module.startswith(place + ".") for place in places)


def own_imports(module: Module) -> Iterator[tuple[Module, Import]]:
    """What it imports of the house."""
    for found in module.imports:
        if found.target == "gateway" or found.target.startswith("gateway."):
            name = found.target.removeprefix("gateway").removeprefix(".") or "__init__"
            assert name in house(), f"{module.at(found.line)} imports {found.target}, which is not there"
            yield house()[name], found


def floor_of(unit: str) -> tuple[int, int]:
    """Its floor and its place on it.  Raises KeyError for one that is not listed."""
    return {unit: (number, place) for number, floor in enumerate(FLOORS) for place, unit in enumerate(floor)}[unit]


def refuse(violations: list[str]) -> None:
    """Fail with one line per violation."""
    assert not violations, "\n" + "\n".join(violations)


# --- floors -----------------------------------------------------------------------------------------


def test_every_module_has_a_floor() -> None:
    listed = {unit for floor in FLOORS for unit in floor}
    refuse([f"{m.at(1)} is on no floor" for m in house().values() if m.unit not in listed | {"__init__"}])


def test_the_package_says_the_same_floors_as_this_table() -> None:
    told = re.findall(r"([\w, ]+?) \((\d)\)", house()["__init__"].text.replace("\n", " "))
    floors = {name.strip(): int(number) for names, number in told for name in names.split(",")}
    assert len(floors) > 10, "the floors are not told in the package's docstring"
    assert {name: floor_of(name)[0] for name in floors} == floors


def test_imports_go_down_or_sideways_in_one_folder() -> None:
    wrong = []
    for module in house().values():
        for target, found in own_imports(module):
            if "__init__" in (module.unit, target.unit) or module.unit == target.unit:
                continue
            if floor_of(target.unit) >= floor_of(module.unit):
                wrong.append(f"{module.at(found.line)} ({module.name}) imports upwards: {target.name}")
    refuse(wrong)


def test_no_imports_go_round_in_a_circle() -> None:
    """Imports for types only are left out: they do not run."""
    graph = {
        module.name: sorted({target.name for target, found in own_imports(module) if not found.typing_only})
        for module in house().values()
    }
    done: set[str] = set()
    circles = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    refuse(circles)


def test_policy_and_dialect_do_not_know_each_other_and_the_edge_knows_no_policy() -> None:
    refuse(
        [
            f"{module.at(found.line)}: {module.unit} imports {target.name}"
            for module in house().values()
            for target, found in own_imports(module)
            if (module.unit, target.unit) in STRANGERS
        ]
    )


def test_no_folders_init_hands_on_what_lies_in_it() -> None:
    """An import path is a file path."""
    refuse(
        [
            f"{module.at(node.lineno)}: {ast.unparse(node)}"
            for module in house().values()
            if module.path.name == "__init__.py"
            for node in module.tree.body[1:]
            if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__")
        ]
    )


# --- owners -----------------------------------------------------------------------------------------


def third_party(module: Module) -> Iterator[tuple[str, Import]]:
    for found in module.imports:
        package = found.target.split(".")[0]
        if package not in sys.stdlib_module_names and package != "gateway":
            yield package, found


def test_each_third_party_package_is_imported_by_its_owner_only() -> None:
    refuse(
        [
            f"{module.at(found.line)}: {package} belongs to {', '.join(OWNERS.get(package, ())) or 'nobody'}"
            for module in house().values()
            for package, found in third_party(module)
            if not within(module.name, OWNERS.get(package, ()))
        ]
    )


def test_every_owner_named_here_is_of_a_package_that_is_used() -> None:
    used = {package for module in house().values() for package, _ in third_party(module)}
    refuse([f"nobody imports {package}" for package in sorted(set(OWNERS) - used)])


# --- purity, clocks, chance -------------------------------------------------------------------------


def test_policies_and_dialects_are_pure() -> None:
    wrong = []
    for module in house().values():
        if module.unit not in PURE:
            continue
        wrong += [
            f"{module.at(found.line)} imports {found.target}"
            for found in module.imports
            if found.target.split(".")[0] in NOT_IN_PURE
        ]
        wrong += [
            f"{module.at(node.lineno)} is not synchronous"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        ]
    refuse(wrong)


def test_policies_import_no_third_party_at_all() -> None:
    refuse(
        [
            f"{module.at(found.line)} imports {package}"
            for module in house().values()
            if module.unit == "policy"
            for package, found in third_party(module)
        ]
    )


def test_the_fleet_changes_nothing_across_an_await() -> None:
    fleet = house()["upstream.fleet"]
    refuse([fleet.at(n.lineno) for n in ast.walk(fleet.tree) if isinstance(n, ast.AsyncFunctionDef | ast.Await)])


def test_only_the_clock_asks_what_time_it_is() -> None:
    """`time` is imported nowhere else, dates are made of given instants, and loops are asked where listed."""
    wrong = []
    for module in house().values():
        if module.name == "clock":
            continue
        wrong += [f"{module.at(i.line)} imports time" for i in module.imports if i.target.split(".")[0] == "time"]
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            asked, of = node.func.attr, ast.unparse(node.func.value)
            if asked in ("now", "utcnow", "today") and of.split(".")[-1] in ("datetime", "date"):
                wrong.append(f"{module.at(node.lineno)} asks {of}.{asked}()")
            if asked == "time" and not node.args and module.name not in LOOP_CLOCKS:
                wrong.append(f"{module.at(node.lineno)} asks {of}.time()")
    refuse(wrong)


def test_chance_is_made_where_the_house_is_put_together_and_handed_on() -> None:
    """No function of the module `random` is called: each owner has a generator that a test can seed."""
    wrong = []
    for module in house().values():
        makes_it = within(module.name, CHANCE_MAKERS)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "random":
                names = {alias.name for alias in node.names} - {"Random"}
                wrong += [f"{module.at(node.lineno)} imports random.{name}" for name in sorted(names)]
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
                wrong.append(f"{module.at(node.lineno)} uses random.{node.attr}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("random.Random", "Random") and not makes_it:
                wrong.append(f"{module.at(node.lineno)} makes its own chance")
    refuse(wrong)


def test_nothing_is_printed() -> None:
    """What people read goes through the command line's console or the log, where it is redacted."""
    refuse(
        [
            module.at(node.lineno)
            for module in house().values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        ]
    )


# --- names and sizes --------------------------------------------------------------------------------


def test_a_module_is_named_after_what_it_is_about() -> None:
    refuse([f"{m.at(1)}: {m.name}" for m in house().values() if REFUSED_NAMES & set(m.name.split("."))])


def test_every_module_opens_with_a_sentence_that_says_what_it_is() -> None:
    wrong = []
    for module in house().values():
        opening = (ast.get_docstring(module.tree) or "").split("\n\n")[0]
        if len(opening.split()) < 4 or not opening.endswith("."):
            wrong.append(f"{module.at(1)} opens with {opening!r}")
    refuse(wrong)


def test_a_module_past_its_length_is_two_things() -> None:
    lengths = {module.at(1): len(module.text.splitlines()) for module in house().values()}
    refuse([f"{where} has {n} lines of {LONGEST_MODULE}" for where, n in lengths.items() if n > LONGEST_MODULE])


def test_a_function_past_its_length_is_two_things() -> None:
    wrong = []
    for module in house().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    wrong.append(f"{module.at(node.lineno)} {node.name} has {length} lines of {LONGEST_FUNCTION}")
    refuse(wrong)
