"""`python -m benchmarks [NAME[:CASE] ...] [--json]`."""

from __future__ import annotations

import argparse
import compileall
import json
import sys
from importlib import import_module
from pathlib import Path

import learnae
from benchmarks import Result


def list_names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def format_table(results: list[Result]) -> str:
    rows = [("case", "value", "unit", "reference", "its value", "ratio")]
    for result in results:
        reference_value = "" if result.reference_value is None else f"{result.reference_value:,.3f}"
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        rows.append((result.case, f"{result.value:,.3f}", result.unit, result.reference or "", reference_value, ratio))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def compile_modules() -> None:
    """Compile the package as pip does when it installs it: where Python may write no bytecode, every process would do it again."""
    for folder in (Path(learnae.__file__).parent, Path(__file__).parent):
        compileall.compile_dir(folder, quiet=2)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure a part of learnae on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(list_names())}; NAME:CASE picks a case")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name.partition(":")[0] not in list_names()]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; choose from: {', '.join(list_names())}", file=sys.stderr)
        return 2
    if not chosen.names:
        print("\n".join(list_names()))
    else:
        compile_modules()
    for name in chosen.names:
        name, _, case = name.partition(":")
        module = import_module(f"benchmarks.{name}")
        cases = getattr(module, "CASES", ())
        if case and case not in cases:
            print(f"the benchmark {name!r} has no case {case!r}; it has {', '.join(cases) or 'none'}", file=sys.stderr)
            return 2
        results: list[Result] = module.run(case) if case else module.run()
        if chosen.json:
            print(json.dumps({"benchmark": name, "results": [result.to_json() for result in results]}), flush=True)
        else:
            print(f"{name}\n{format_table(results)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
