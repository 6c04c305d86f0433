"""What docs/contracts.md says of the contract flow is what the flow does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/contracts.md").read_text()
SOURCES = [ROOT / path for path in (
    "tieout/governance.py", "tieout/lifecycle.py", "tieout/lifecycle_rules.py", "tieout/proposal.py", "tieout/rate_cards.py",
    "tieout/contract_references.py", "tieout/contract_calendar.py", "tieout/contract_currency.py", "flows/commands/contract.py",
)]
TESTS = [ROOT / path for path in ("tests/unit/test_lifecycle.py", "tests/flow/test_contract_commands.py")]


def codes():
    """Every code that a problem is made with: the second argument of a call that makes one."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Problem", "_refused", "_unknown") and len(node.args) > 1:
                found |= {part.value for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return found


def listed():
    return set(re.findall(r"^\| `([a-z_]+)` \|", TEXT.split("## Refusals")[1].split("## From a CRM")[0], re.MULTILINE))


def test_the_table_of_refusals_lists_every_code():
    assert codes() == listed()


def test_every_refusal_has_a_test():
    tested = "".join(path.read_text() for path in TESTS)
    assert [code for code in sorted(listed()) if f'"{code}"' not in tested] == []


def test_the_walk_through_runs_as_it_stands(tmp_path):
    (block,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    script = f'set -e\ntieout() {{ "{sys.executable}" -m flows.cli "$@"; }}\n{block}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "charges[tokens].price.unit_price" in answer.stdout
    assert "2026-01-01T00:00:00Z .. 2026-03-01T00:00:00Z" in answer.stdout
