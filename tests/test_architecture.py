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
    ("clock", "errands", "telemetry", "catalogue", "config"),
    ("upstream",),
    ("edge",),
    ("drill",),
    ("venue_routes", "routes", "assembly", "cli", "__main__"),
)
"""Files and folders of gateway/.  An import goes to a lower floor, to one earlier on the same floor, or stays home."""

STRANGERS = {("policy", "dialect"), ("dialect", "policy"), ("edge", "policy")}

OWNERS = {
    "Crypto": ("dialect.transactions",),
    "click": ("__main__",),
    "httptools": ("upstream.wire.connection", "edge.server"),
    "httpx2": ("upstream.wire.httpx2_engine", "__main__"),
    "msgspec": ("dialect",),
    "opentelemetry": ("telemetry",),
    "prometheus_client": ("telemetry.metrics",),
    "pydantic": ("config",),
    "pydantic_core": ("config",),
    "rich": ("__main__", "cli"),
    "starlette": ("edge.pages",),
    "tenacity": ("upstream.wire.sockets",),
    "uvicorn": ("edge.server", "edge.listener"),
    "uvloop": ("__main__",),
    "watchfiles": ("config.watch",),
    "websockets": ("upstream.wire.sockets", "upstream.wire.socket_client", "edge.socket", "drill"),
    "yaml": ("config.yaml_nodes",),
}
"""Who may import a third-party package: these modules, or modules of these folders."""

PURE = ("policy", "dialect")
PURE_STDLIB = {
    "__future__", "abc", "base64", "binascii", "bisect", "calendar", "collections", "collections.abc", "copy",
    "dataclasses", "decimal", "email.utils", "enum", "fractions", "functools", "hashlib", "heapq", "hmac",
    "importlib.resources", "ipaddress", "itertools", "json", "math", "operator", "posixpath", "re", "string", "struct",
    "types", "typing", "unicodedata", "urllib.parse",
}  # fmt: skip
"""What pure modules may take from the standard library: a list of what is allowed, so that a new way to a clock,
to chance, to a thread or to a file is refused before anybody has thought of it."""
IMPURE_NAMES = {"formatdate", "localtime", "make_msgid", "open", "input", "eval", "exec", "compile", "__import__"}
"""Names that are refused although what they come from is allowed, or needs no import."""
LIVE_STATE = (
    "upstream.fleet.blocks",
    "upstream.fleet.endpoints",
    "upstream.fleet.facts",
    "upstream.fleet.pool",
    "upstream.fleet.permits",
)
"""Where the live state of endpoints is kept and changed; none of these may wait for anything."""
WRITES_TOO = {
    "upstream.calls.hedge", "upstream.health.polling", "upstream.health.probes", "upstream.venues.probes",
}  # fmt: skip  # found out by asking, and written down where it was asked; nobody else may join them
HANDED_ON = {
    ("config.load", "secrets_of"), ("config.load", "warnings_of"),
    ("upstream.health.diagnosis", "Verdict"), ("upstream.wire.socket_client", "ConnectionClosed"),
}  # fmt: skip
"""(module, name): imported from there although it is defined elsewhere.  An owner hands on its package's errors."""
MODULE_STATE = {("config.sections", "_models"), ("upstream.feeds.line", "_farewells")}
"""(module, name): a memory of what was made, and tasks that nobody else would hold."""
CHANCE_MAKERS = ("assembly", "__main__", "cli", "drill")  # where a random.Random is made
LOOP_CLOCKS = {
    "edge.server",
    "edge.listener",
    "edge.socket",
}  # compares instants of the event loop with each other, and with nothing else
REFUSED_NAMES = {"utils", "helpers", "common", "misc", "base", "core", "manager", "service"}
LONGEST_MODULE = 400
LONGEST_GROWN = 450
GROWN = {
    "assembly", "drill.chain", "drill.provider", "drill.venues.exchange", "policy.feeds.heads",
    "policy.feeds.logs", "policy.heads", "upstream.venues.forward", "upstream.wire.sockets", "upstream.venues.topics",
}  # fmt: skip
"""Modules that have grown past `LONGEST_MODULE`, and are to become two when they are next changed."""
LONGEST_FUNCTION = 64
LAWLESS = {
    "clock", "dialect.generic", "dialect.protocol", "dialect.registry", "upstream.wire.engine", "upstream.calls.route",
}  # fmt: skip
"""Modules without a law of their own: words, interfaces, and what only puts others side by side."""


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
    assert floors == {unit: number for number, floor in enumerate(FLOORS) for unit in floor}


def test_imports_go_down_or_sideways_in_one_folder() -> None:
    wrong = []
    for module in house().values():
        for target, found in own_imports(module):
            if "__init__" in (module.unit, target.unit) or module.unit == target.unit:
                continue
            if floor_of(target.unit) >= floor_of(module.unit):
                wrong.append(f"{module.at(found.line)} ({module.name}) imports upwards: {target.name}")
    refuse(wrong)


def circles_in(graph: dict[str, list[str]]) -> list[str]:
    """Every way through the graph that comes back to where it was."""
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
    return circles


def test_no_imports_go_round_in_a_circle() -> None:
    """Imports for types only are left out: they do not run."""
    refuse(
        circles_in(
            {
                module.name: sorted({target.name for target, found in own_imports(module) if not found.typing_only})
                for module in house().values()
            }
        )
    )


def test_folders_inside_a_folder_stand_above_or_below_each_other() -> None:
    """Among these, and between them and the files beside them, imports go one way only, those for types too."""
    graph: dict[str, set[str]] = {module.folder: set() for module in house().values()}
    for module in house().values():
        graph[module.folder] |= {
            target.folder
            for target, _ in own_imports(module)
            if target.unit == module.unit and target.folder != module.folder
        }
    refuse(circles_in({folder: sorted(targets) for folder, targets in graph.items()}))


UPSTREAM = ("wire", "fleet", "calls", "health", "feeds", "venues")
"""The rooms of upstream/.  A file lies in one of them, and imports from its own and from those before it."""


def test_the_rooms_of_upstream_stand_in_order() -> None:
    wrong = []
    for module in house().values():
        if module.unit != "upstream" or module.name == "upstream":
            continue
        room = module.name.split(".")[1]
        if room not in UPSTREAM:
            wrong.append(f"{module.at(1)} lies in no room")
            continue
        for target, found in own_imports(module):
            if target.unit == "upstream" and UPSTREAM.index(target.name.split(".")[1]) > UPSTREAM.index(room):
                wrong.append(f"{module.at(found.line)} ({room}) imports {target.name}")
    refuse(wrong)


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


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    """Else a lower floor's words reach a floor that must not know them, by way of the one between."""
    wrong = []
    for module in house().values():
        for node in ast.walk(module.tree):
            origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            source = house().get(origin.removeprefix("gateway."))
            if not isinstance(node, ast.ImportFrom) or not origin.startswith("gateway.") or source is None:
                continue
            wrong += [
                f"{module.at(node.lineno)}: {alias.name} is not defined in {source.name}"
                for alias in node.names
                if alias.name not in defined_in(source)
                and f"{source.name}.{alias.name}" not in house()
                and (source.name, alias.name) not in HANDED_ON
            ]
    refuse(wrong)


def test_nobody_imports_what_another_module_keeps_to_itself() -> None:
    refuse(
        [
            f"{module.at(node.lineno)}: {alias.name} of {node.module}"
            for module in house().values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway")
            for alias in node.names
            if alias.name.startswith("_") and alias.name != "__version__"
        ]
    )


def defined_in(module: Module) -> set[str]:
    """Names that its own statements make, imports left out."""
    names: set[str] = set()
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return names


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


def test_every_owner_named_here_uses_its_package() -> None:
    users = {(package, module.name) for module in house().values() for package, _ in third_party(module)}
    refuse(
        [
            f"{place} does not import {package}"
            for package, places in OWNERS.items()
            for place in places
            if not any(used == package and within(name, (place,)) for used, name in users)
        ]
    )


# --- purity, clocks, chance -------------------------------------------------------------------------


def names_of(node: ast.AST) -> list[str]:
    """The names that a node looks up or imports."""
    if isinstance(node, ast.Name):
        return [node.id]
    return [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


def test_policies_and_dialects_are_pure() -> None:
    wrong = []
    for module in house().values():
        if module.unit not in PURE:
            continue
        wrong += [
            f"{module.at(found.line)} imports {found.target}"
            for found in module.imports
            if found.target.split(".")[0] in sys.stdlib_module_names and found.target not in PURE_STDLIB
        ]
        wrong += [
            f"{module.at(node.lineno)} uses {name}"
            for node in ast.walk(module.tree)
            for name in names_of(node)
            if name in IMPURE_NAMES
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
    """What is not asynchronous cannot be interrupted: a change is seen whole or not at all."""
    waits = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    refuse(
        [
            house()[name].at(node.lineno)
            for name in LIVE_STATE
            for node in ast.walk(house()[name].tree)
            if isinstance(node, waits)
        ]
    )


def test_live_state_is_written_by_its_owners() -> None:
    """A field of an endpoint's state, of its cells and of their breakers is set where `LIVE_STATE` says."""
    fields = slots_of("upstream.fleet.endpoints", "EndpointState") | slots_of("upstream.fleet.endpoints", "Cell")
    fields |= slots_of("policy.breaker", "Breaker") | slots_of("policy.holds", "GrowingHold")
    wrong = []
    for module in house().values():
        if module.unit == "policy" or within(module.name, (*LIVE_STATE, *WRITES_TOO)):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in fields:
                owner = ast.unparse(node.value).split(".")[-1]
                if owner in ("state", "cell", "breaker", "hold", "exclusion"):
                    wrong.append(f"{module.at(node.lineno)} sets {ast.unparse(node)}")
    refuse(wrong)


def slots_of(module: str, name: str) -> set[str]:
    """The fields of a class with slots."""
    cls = next(n for n in house()[module].tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    slots = next(n.value for n in cls.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__slots__")
    return set(ast.literal_eval(slots))


def test_no_module_holds_state() -> None:
    """Two gateways in one process, and two tests, share nothing that changes."""
    wrong = []
    for module in house().values():
        wrong += [module.at(node.lineno) for node in ast.walk(module.tree) if isinstance(node, ast.Global)]
        for node in module.tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            empty = ast.unparse(node.value) in ("{}", "[]", "set()", "dict()", "list()", "deque()", "Counter()")
            if empty and (module.name, target) not in MODULE_STATE:
                wrong.append(f"{module.at(node.lineno)} begins empty, so somebody fills it: {target}")
    refuse(wrong)


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
    """No function of the module `random` is called: each owner has a generator that a test can seed.

    The system's own chance serves for ids of traces, which nothing is decided by.
    """
    wrong = []
    for module in house().values():
        makes_it = within(module.name, CHANCE_MAKERS)
        if module.unit != "telemetry":
            wrong += [
                f"{module.at(found.line)} imports {found.target}"
                for found in module.imports
                if found.target.split(".")[0] in ("secrets", "uuid")
            ]
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


def test_every_module_states_its_law() -> None:
    """What is always true of it, so that whoever changes it knows what must stay true."""
    refuse(
        [
            f"{module.at(1)} does not say what is always true"
            for module in house().values()
            if module.path.name != "__init__.py"
            and module.name not in LAWLESS
            and module.folder != "drill/venues"  # each pretends to be one exchange, as its docstring says
            and "Always true" not in (ast.get_docstring(module.tree) or "")
        ]
    )


def test_everything_that_others_may_use_says_what_it_is() -> None:
    """Public functions and classes of a module; the drill and the screens are read by nobody but themselves."""
    refuse(
        [
            f"{module.at(node.lineno)} {node.name} has no docstring"
            for module in house().values()
            if module.unit not in ("drill", "cli")
            for node in module.tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    )


def test_a_module_past_its_length_is_two_things() -> None:
    wrong = []
    for module in house().values():
        lines, most = len(module.text.splitlines()), LONGEST_GROWN if module.name in GROWN else LONGEST_MODULE
        if lines > most:
            wrong.append(f"{module.at(1)} has {lines} lines of {most}")
    refuse(wrong)


def test_a_function_past_its_length_is_two_things() -> None:
    wrong = []
    for module in house().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    wrong.append(f"{module.at(node.lineno)} {node.name} has {length} lines of {LONGEST_FUNCTION}")
    refuse(wrong)
