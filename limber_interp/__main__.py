"""`python -m limber_interp`: the commands, each with its one line."""

import ast
from pathlib import Path

from limber_interp import __version__


def commands() -> dict[str, str]:
    """Name -> first line of the docstring, of each file of the package that has a `main`. Read, not imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


if __name__ == "__main__":
    print(f"limber_interp {__version__}\n")
    for name, summary in commands().items():
        print(f"  python -m limber_interp.{name:<18} {summary}")
    print("\nEach takes --help.")
