"""The house rules that a machine can hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("tieout", "schemas", "sources", "sinks", "flows")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_imports_point_one_way():
    answer = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
    assert "3 kept, 0 broken" in answer.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_imports_at_its_top(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert path.name not in {"utils.py", "helpers.py", "common.py"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{node.name} imports inside"


def test_only_these_modules_load_another_one_when_it_is_needed():
    loading = {str(path.relative_to(ROOT)) for path in MODULES if "import_module(" in path.read_text()}
    assert loading == {"flows/cli.py", "flows/authority.py", "tieout/whole_contracts.py"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "tieout")], ids=lambda path: path.name)
def test_the_domain_has_no_floats_and_no_clock(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"line {node.lineno}: a float"
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name not in {"float", "float32", "float64", "now", "utcnow", "today", "monotonic", "perf_counter"}, f"line {node.lineno}: {name}"


def test_help_loads_no_column_library():
    code = "import sys, flows.cli; flows.cli.parser(); print(sorted({'pyarrow', 'numpy', 'bytewax', 'pydantic', 'rich'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_usage_cell_starts_without_what_only_documents_and_signatures_need():
    code = "import sys, flows.usage_live, flows.kafka_place, flows.flow_metrics; print(sorted({'pydantic', 'cryptography', 'tieout.contracts'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
