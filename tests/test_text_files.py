"""No text file depends on the locale: wherever one is opened the encoding is named."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for part in ("jaxlin", "experiments", "tests") for path in (ROOT / part).rglob("*.py")
)
MODES = set("rwxabt+")


def without_encoding(source: str) -> list[int]:
    """The lines that open, read or write a text file and leave the encoding to the locale."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if leaves_it_open(call)]


def leaves_it_open(call: ast.Call) -> bool:
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return False
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if method else getattr(call.func, "id", "")
    if method and name in ("read_text", "write_text"):
        return len(call.args) <= (name == "write_text")
    if name not in ("open", "fdopen"):
        return False
    named = next((k.value for k in call.keywords if k.arg == "mode"), None)
    position = 0 if method and name == "open" else 1
    mode = call.args[position] if len(call.args) > position else named
    if mode is None:  # `path.open()`, but not `archive.open(member)`
        return not call.args or position == 1
    text = getattr(mode, "value", None)
    return isinstance(text, str) and set(text) <= MODES and "b" not in text


def test_every_text_file_has_an_encoding():
    lines = {path: without_encoding(path.read_text(encoding="utf-8")) for path in FILES}
    assert len(lines) > 100
    assert {str(path.relative_to(ROOT)): found for path, found in lines.items() if found} == {}


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("open(p)", True),
        ("open(p, 'a')", True),
        ("open(p, mode='w')", True),
        ("open(p, 'rb')", False),
        ("open(p, encoding='utf-8')", False),
        ("p.open()", True),
        ("p.open('w', newline='')", True),
        ("p.open('xb')", False),
        ("archive.open(member)", False),
        ("os.open(p, os.O_RDONLY)", False),
        ("os.fdopen(d, 'w')", True),
        ("(a / b).read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(text)", True),
        ("p.write_text(text, encoding='utf-8')", False),
        ("p.write_text(text, 'utf-8')", False),
    ],
)
def test_what_the_rule_sees(call, wrong):
    assert without_encoding(call) == [1] * wrong
