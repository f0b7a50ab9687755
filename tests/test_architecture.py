"""The rules of docs/architecture.md, checked on the sources. The lists are read from that page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.paths import ROOT

import kdistill

C_FILES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".c", ".h", ".inc"})
PACKAGE = ROOT / "kdistill"
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))

# What CPython's API takes as pointers to non-const: definitions, and the names of keyword arguments.
CPYTHON_TABLE = re.compile(r"\bPy(ModuleDef|MethodDef|GetSetDef|MemberDef|Type)(_Slot|_Spec)?\b|char \*\w+\[\]$")
FORBIDDEN_CALLS = {
    "malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "strdup",
    "exit", "_exit", "abort", "assert", "printf", "fprintf", "puts", "putchar", "perror",
}  # fmt: skip


def by_name(path: Path) -> str:
    return path.name


def block(heading: str) -> list[str]:
    """Lines of the first fenced block under `## heading`."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(rf"^## {heading}\n.*?^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/architecture.md has no list under '## {heading}'"
    return found[1].splitlines()


def c_rooms() -> list[str]:
    """All C rooms from the lowest to the highest: the words after the layer's name on each line."""
    return [room for line in block("C layers") for room in line.split()[1:]]


def skin_rooms() -> list[str]:
    (line,) = (line for line in block("C layers") if line.startswith("skin"))
    return line.split()[1:]


def c_room(name: str) -> str:
    """Return the room of a C file: the longest room that its name starts with (kd_kernels_avx2.c), or its own name."""
    stem = Path(name).stem
    owners = [room for room in c_rooms() if stem == room or stem.startswith(f"{room}_")]
    return max(owners, key=len, default=stem)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def code(path: Path) -> str:
    """A C file without comments, preprocessor lines and the contents of strings."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    return re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', '""', text)


def declarations(text: str) -> list[str]:
    """Return the declarations at file scope, each body shown as `{}`, and the `static` ones inside functions."""
    static = re.findall(r"\bstatic\b[^;={]*", text)
    body = re.compile(r"\{[^{}]*\}")
    while body.search(text):
        text = body.sub("@", text)
    outer = re.findall(r"[^;@]*\)\s*@|[^;]+", text)  # a function with its body, or anything up to its semicolon
    return [" ".join(declaration.split("=")[0].replace("@", "{}").split()) for declaration in outer + static]


def mutable_variables(text: str) -> list[str]:
    """Declarations of variables that can be written: neither functions nor types nor constants."""
    result = []
    for declaration in declarations(text):
        words = re.sub(r"__attribute__\s*\(\(.*?\)\)|_Alignas\s*\([^)]*\)", "", declaration).strip()
        is_type = words.startswith("typedef") or re.fullmatch(r"(struct|union|enum)( \w+)?( \{\})?", words)
        is_function = re.search(r"\w\s*\((?!\s*\*)", words)
        is_constant = re.search(r"\bconst\b[^*]*$", words)
        if words and not (is_type or is_function or is_constant):
            result.append(words)
    return result


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_c_file_includes_only_its_own_room_and_lower_ones(path: Path) -> None:
    order = c_rooms()
    own = order.index(c_room(path.name))
    upward = [name for name in includes(path) if c_room(name) in order and order.index(c_room(name)) > own]
    assert not upward, f"{path.name} includes higher rooms"


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_c_file_lies_in_the_folder_of_its_layer_and_is_included_by_that_path(path: Path) -> None:
    (layer,) = (line.split()[0] for line in block("C layers") if c_room(path.name) in line.split()[1:])
    assert path.parent == ROOT / "csrc" / layer
    ours = [name for name in includes(path) if Path(name).name.startswith("kd_")]
    assert all((ROOT / "csrc" / name).is_file() for name in ours), f"{path.name} includes {ours}"


@pytest.mark.parametrize("path", [path for path in C_FILES if path.suffix == ".c"], ids=by_name)
def test_c_file_includes_its_own_header_first(path: Path) -> None:
    first = next(iter(includes(path)), "")
    assert Path(first).name.startswith("kd_"), f"{path.name} opens with <{first}>"
    assert c_room(first) == c_room(path.name) or c_room(path.name) in skin_rooms()


def test_every_c_file_has_its_room_and_every_room_a_file() -> None:
    assert {c_room(path.name) for path in C_FILES} == set(c_rooms())


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_only_the_skin_knows_python(path: Path) -> None:
    known = [name for name in includes(path) if name == "Python.h" or name.startswith("numpy/")]
    assert not known or c_room(path.name) in skin_rooms(), f"{path.name} includes {known}"


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_only_kd_outer_knows_blis(path: Path) -> None:
    known = [name for name in includes(path) if "blis" in name.lower()]
    assert not known or c_room(path.name) == "kd_outer", f"{path.name} includes {known}"


@pytest.mark.parametrize("path", [path for path in C_FILES if c_room(path.name) != "kd_pool"], ids=by_name)
def test_c_neither_allocates_nor_ends_nor_prints(path: Path) -> None:
    called = set(re.findall(r"\b(\w+)\s*\(", code(path))) & FORBIDDEN_CALLS
    assert not called, f"{path.name} calls {sorted(called)}"


@pytest.mark.parametrize("path", [path for path in C_FILES if c_room(path.name) != "kd_pool"], ids=by_name)
def test_c_keeps_no_mutable_state(path: Path) -> None:
    kept = mutable_variables(code(path))
    if c_room(path.name) in skin_rooms():
        kept = [declaration for declaration in kept if not CPYTHON_TABLE.search(declaration)]
    assert not kept, f"{path.name} keeps mutable state"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("static int counter;", 1),
        ("int shared = 3;", 1),
        ("static const char *names[] = {0};", 1),
        ("static int (*hook)(int) = 0;", 1),
        ("void f(void) { static float scratch[4]; }", 1),
        ("static const char *const names[] = {0};", 0),
        ("const kd_kernels table = {1};", 0),
        ("static int f(int x) { int y = x; return y; }", 0),
        ("typedef struct kd_x { int a; } kd_x; struct kd_y { int b; }; enum { N = 3 }; enum kd_z { A };", 0),
        ("float f(const float *x, ptrdiff_t n);", 0),
    ],
)
def test_mutable_state_is_recognised(text: str, expected: int) -> None:
    assert len(set(mutable_variables(text))) == expected


@pytest.mark.parametrize("path", [*C_FILES, *PYTHON_FILES], ids=by_name)
def test_a_file_above_500_lines_explains_itself_at_its_top(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 500 or "lines" in "".join(lines[:12]), f"{path.name} has {len(lines)} lines and no reason"


def functions(path: Path) -> tuple[set[str], set[str]]:
    """Functions that a C file defines for others, and the names that it calls or takes the address of."""
    text = code(path)
    heads = [each for each in declarations(text) if each.endswith("{}") and not each.startswith(("static", "typedef"))]
    defined = {found[1] for head in heads if (found := re.match(r"[^()]*?\b(kd_\w+|PyInit_\w+)\s*\(", head))}
    return defined, set(re.findall(r"\bkd_\w+", text)) - defined


def test_no_circle_among_c_files() -> None:
    """A file stands on those whose functions it uses; none stands on itself by way of others."""
    files = {path: functions(path) for path in C_FILES if path.suffix == ".c"}
    home = {name: path for path, (defined, _) in files.items() for name in defined}
    assert len(home) > 100
    graph = {path: {home[name] for name in used if name in home} - {path} for path, (_, used) in files.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_build_keeps_ieee_arithmetic_and_one_binary_for_all_cpus() -> None:
    constants = (
        node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Constant)
    )
    flags = {flag for constant in constants for flag in str(constant.value).split()}
    assert "-O3" in flags
    assert not flags & {"-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-march=native"}


# ---- Python


def module_name(path: Path) -> str:
    """The dotted name of a module, as in "train.loop"; a package is named by its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PYTHON_FILES if path.name != "__init__.py" or path.parent == PACKAGE}


def imports(path: Path) -> Iterator[str]:
    """Yield the imports anywhere in a module as dotted names, with the name that is taken from there last."""
    package = ["kdistill", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            yield from (".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names)


def ours_imported(path: Path) -> set[str]:
    """The modules of kdistill that a module imports; "" when it asks the package itself for a name."""
    result = set()
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "kdistill" and rest != "__version__":  # a constant that is there before any module is
            while rest and rest not in {*MODULES, "_core"}:
                rest = rest.rpartition(".")[0]
            result.add(rest)
    return result


def packages() -> list[str]:
    """Packages, and modules beside them, from the lowest to the highest: the first word of each line of the page."""
    return [line.split()[0] for line in block("Python packages")]


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_its_place() -> None:
    assert {package_of(name) for name in MODULES} - {"__main__", ""} | {"_core"} == set(packages())


@pytest.mark.parametrize("module", MODULES)
def test_python_module_imports_only_its_own_package_and_lower_ones(module: str) -> None:
    if module in {"", "__main__"}:  # they stand above all packages
        return
    order = packages()
    own = order.index(package_of(module))
    higher = {name for name in ours_imported(MODULES[module]) if not name or order.index(package_of(name)) > own}
    assert not higher, f"{module} imports higher packages"


@pytest.mark.parametrize("package", packages())
def test_no_circle_inside_a_package(package: str) -> None:
    inside = {name for name in MODULES if package_of(name) == package}
    graph = {name: ours_imported(MODULES[name]) & inside - {name} for name in inside} if len(inside) > 1 else {}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", sorted({path.parent for path in PYTHON_FILES} - {PACKAGE}), ids=by_name)
def test_a_package_opens_with_its_docstring_and_holds_nothing_else(package: Path) -> None:
    (statement,) = ast.parse((package / "__init__.py").read_text()).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
    assert isinstance(statement.value.value, str)


def other_packages() -> dict[str, set[str]]:
    """Packages of others that the page names, and the modules that may import each."""
    rows = (line.split() for line in block("Packages of others"))
    return {name: set(modules) for name, *modules in rows}


@pytest.mark.parametrize("module", MODULES)
def test_packages_of_others_are_imported_where_the_page_names_them(module: str) -> None:
    allowed = other_packages()
    theirs = {name.partition(".")[0] for name in imports(MODULES[module])} - {*sys.stdlib_module_names, "numpy"}
    wrong = {name for name in theirs - {"kdistill"} if module not in allowed.get(name, set())}
    assert not wrong, f"{module} imports {wrong}; docs/architecture.md names who may"


def test_the_page_names_no_package_that_nobody_imports() -> None:
    for name, modules in other_packages().items():
        for module in modules:
            assert name in {imported.partition(".")[0] for imported in imports(MODULES[module])}, f"{module}, {name}"


def test_no_class_is_continued_in_another_file() -> None:
    """A class that one other file derives from and nobody else uses is the first half of that file's class."""
    trees = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
    derived, used = defaultdict(set), defaultdict(set)  # name -> modules
    for module, tree in trees.items():
        bases = {id(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (derived if id(node) in bases else used)[node.id].add(module)
    for home, tree in trees.items():
        for name in (node.name for node in tree.body if isinstance(node, ast.ClassDef)):
            elsewhere = derived[name] - {home}
            continued = len(elsewhere) == 1 and not used[name] and name not in kdistill.__all__
            assert not continued, f"{home}.{name} is continued in {elsewhere}"


def test_no_method_is_put_into_a_class_from_outside() -> None:
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            outside = [ast.unparse(target) for target in targets if isinstance(target, ast.Attribute)]
            assert not outside, f"{module} assigns to {outside}"


def test_importing_every_module_loads_only_numpy_and_the_standard_library() -> None:
    script = """
import importlib, sys
before = set(sys.modules)
import kdistill
for name in sys.argv[1:]:
    importlib.import_module(f"kdistill.{name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)))
"""
    for asked in ([], [module for module in MODULES if module not in {"", "__main__"}]):
        command = [sys.executable, "-c", script, *asked]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert set(run.stdout.split()) <= {"kdistill", "numpy"}


def places() -> list[tuple[str, ...]]:
    """The places that the page's tables name: `names in a row` of code spans, such as ("f", "train/loop.py")."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    tables = page[page.index("## The path of a row") : page.index("## C layers")]
    return [tuple(re.findall(r"`([^`]+)`", cell)) for line in tables.splitlines() for cell in line.split("|")[1:-1]]


def test_files_and_functions_that_the_page_names_exist() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (*C_FILES, *PYTHON_FILES)}
    everything = "\n".join(sources.values())
    checked = 0
    for span in {span for cell in places() for span in cell}:
        if "<" in span or span.startswith("exporters"):  # what is to be written
            continue
        if "/" in span or span.endswith((".py", ".c", ".h")):
            name, _, ending = span.partition(".[")
            names = [f"{name}.{letter}" for letter in ending.rstrip("]")] if ending else [name]
            for file in names:
                found = [path for path in sources if path.endswith("/" + file) or path.startswith("kdistill/" + file)]
                assert found or (ROOT / file).exists(), f"docs/architecture.md names {span}"
        else:
            word = re.split(r"\W", span.rsplit(".", 1)[-1])[0]
            assert re.search(rf"\b{word}\b", everything), f"docs/architecture.md names {span}"
        checked += 1
    assert checked > 40
