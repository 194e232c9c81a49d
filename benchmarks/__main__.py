"""All benchmarks: what each measures, what it needs, and how long it took.

python -m benchmarks            # the list
python -m benchmarks projection # all that one says of itself
"""

import argparse
import ast
import json
import pkgutil
import re
from pathlib import Path

from benchmarks import OPTIONAL, is_installed
from benchmarks.report import RESULTS

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="All benchmarks.")
    parser.add_argument("name", nargs="?", help="one of them, told wholly")
    options = parser.parse_args()
    found = benchmarks()
    if options.name is None:
        print("\n\n".join(map(summary, found)))
        print(f"\nResults are in {RESULTS.relative_to(HERE.parent)}, their pages in docs/results.")
        return
    if options.name not in found:
        parser.error(f"there is no benchmark {options.name!r}; there are {', '.join(found)}")
    print(docstring(options.name))


def benchmarks() -> list[str]:
    """Names of the modules and packages that `python -m benchmarks.NAME` runs."""
    names = [m.name for m in pkgutil.iter_modules([str(HERE)]) if m.name != "__main__"]
    return [
        name
        for name in names
        if name != "__main__" and 'if __name__ == "__main__"' in main_text(name)
    ]


def main_text(name: str) -> str:
    path = HERE / name / "__main__.py"
    path = path if path.is_file() else HERE / f"{name}.py"
    return path.read_text() if path.is_file() else ""


def docstring(name: str) -> str:
    """Of the module, or of the package where that says how it is run."""
    texts = [main_text(name)]
    package = HERE / name / "__init__.py"
    texts += [package.read_text()] if package.is_file() else []
    found = [ast.get_docstring(ast.parse(text)) or "" for text in texts]
    return max(found, key=lambda text: text.count("python -m"))


def summary(name: str) -> str:
    """A line of what it measures, its commands, the packages that it takes beside ours."""
    text = docstring(name)
    lines = [f"{name}: {text.partition(chr(10))[0]}"]
    lines += [f"    {line.strip()}" for line in text.splitlines() if "python -m" in line]
    if packages := needs(name):
        told = [each if is_installed(each) else f"{each} (not installed)" for each in packages]
        lines.append(f"    takes {', '.join(told)}")
    if taken := seconds(name):
        lines.append(f"    took {taken}")
    return "\n".join(lines)


def needs(name: str) -> list[str]:
    """Optional packages that it imports, itself or by other files of this folder."""
    files = sorted((HERE / name).glob("*.py")) or [HERE / f"{name}.py"]
    found = set()
    for path in files:  # which grows
        for imported in imports(path.read_text()):
            found.add(imported.partition(".")[0])
            further = HERE.parent / f"{imported.replace('.', '/')}.py"
            if further.is_file() and further.is_relative_to(HERE) and further not in files:
                files.append(further)
    return sorted(found & OPTIONAL.keys())


def imports(text: str) -> set[str]:
    """Names of the modules that Python code imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def seconds(name: str) -> str:
    """How long the runs took whose results are kept."""
    own = re.compile(rf"{name}(_|$)")
    took = []
    for path in sorted(RESULTS.glob("*.json")):
        if own.match(path.stem):
            found = json.loads(path.read_text())
            took += [found["seconds"]] if isinstance(found.get("seconds"), int | float) else []
    if not took:
        return ""
    return f"{max(took) / 60:.0f} minutes" if max(took) >= 90 else f"{max(took):.0f} seconds"


if __name__ == "__main__":
    main()
