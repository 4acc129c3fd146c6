"""Who may import whom (docs/design.md): the table is checked on the source, without importing anything."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "limber_interp"

# layer 0. Within it there is an order, which keeps it free of cycles: who comes later may import who comes before
BOTTOM = ["errors", "arguments", "text", "threads", "hooks", "finite", "urls", "published", "devices", "resources"]
BOTTOM += ["config", "images", "folders", "layout", "records", "extras", "options", "overwriting", "streams"]
BOTTOM += ["datasets", "download", "ranks", "text_rows", "torchscript", "weights"]
LAYERS = {
    **dict.fromkeys(BOTTOM, 0),
    "models": 1,
    "encodings": 2,
    "probes": 2,
    "training": 3,
    "evaluation": 3,
    "plotting": 3,
}
COMMANDS = 4


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(room: str) -> int:
    return LAYERS.get(room, COMMANDS)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, also inside of functions; `from package import name` counts as package.name too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """Modules of the package that a file imports, as paths below it: `models.limber`, `config`."""
    return {name.removeprefix("limber_interp.") for name in imports(path) if name.startswith("limber_interp.")}


FILES = sorted(PACKAGE.rglob("*.py"))
HEAD = ["__init__", "__main__"]  # lazy public names and the list of commands


def test_every_room_has_its_layer():
    rooms = {room_of(path) for path in FILES}
    assert rooms >= LAYERS.keys()
    for path in FILES:
        if layer_of(room_of(path)) == COMMANDS and room_of(path) not in [*HEAD, "cli"]:
            functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert "main" in functions, f"{path.name} is no command: give it a room and a layer"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    room = room_of(path)
    for module in ours(path):
        other = module.partition(".")[0]
        if other in ("__version__", room) or room == "__init__":
            continue
        assert layer_of(other) <= layer_of(room), f"{room} (layer {layer_of(room)}) imports {module}"
        if layer_of(room) == 3:
            assert layer_of(other) < 3, f"{room} imports {module}, its neighbour"
        if room == "plotting":
            assert other in ("records", "layout", "errors", "text"), (
                f"a figure takes records; {path.name} imports {module}"
            )
        if room in BOTTOM:
            assert BOTTOM.index(other) < BOTTOM.index(room), f"{room} imports {module}"
        if layer_of(room) == COMMANDS and layer_of(other) == COMMANDS:
            assert other == "cli", f"command {room} imports command {other}"


def test_only_limber_composes_the_models():
    """Encoders, projection, language model, prompt, vocabulary and generation do not know each other."""
    for path in sorted((PACKAGE / "models").rglob("*.py")):
        part = path.relative_to(PACKAGE / "models").parts[0].removesuffix(".py")
        known = {module.split(".")[1] for module in ours(path) if module.startswith("models.")}
        if part == "__init__":
            continue  # the room's public names, each imported when it is asked for
        if part == "limber":
            assert known >= {"encoders", "projection", "hooked_gptj", "prompt", "vocabulary", "generation"}
        else:
            assert known <= {part}, f"models/{part} imports {known - {part}}"


def test_who_imports_deepspeed():
    users = {
        str(path.relative_to(PACKAGE)) for path in FILES if any(m.split(".")[0] == "deepspeed" for m in imports(path))
    }
    assert users <= {f"training/{name}.py" for name in ("steps", "ranks", "checkpoints")}


def test_deepspeed_is_imported_where_it_is_used():
    """Never by a module's head: the closed forms, and whoever imports the engine, need none."""
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", None) or ""]
            assert not any(name.partition(".")[0] == "deepspeed" for name in names), path


def test_the_package_does_not_know_its_experiments():
    for path in FILES:
        assert not {module.partition(".")[0] for module in imports(path)} & {"experiments", "notebooks", "tests"}, path


def test_the_check_sees_a_breach(tmp_path):
    """The checks above would also pass if `imports` found nothing."""
    path = tmp_path / "a.py"
    path.write_text("def f():\n    from limber_interp.models import limber\n    import deepspeed.ops\n")
    assert imports(path) == {"limber_interp.models", "limber_interp.models.limber", "deepspeed.ops"}
    assert ours(path) == {"models", "models.limber"}
