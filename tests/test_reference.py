"""The reference: every public name is on its page, formulas are drawn, nothing asks the network."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlin

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="session")
def site(once, tmp_path_factory):
    """The pages, as a process of its own writes them (pdoc resolves names within the package)."""
    pytest.importorskip("pdoc")

    def make():
        folder = tmp_path_factory.mktemp("site")
        command = [sys.executable, ROOT / "docs" / "build.py", "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(folder)

    return Path(once("site", make))


def public_modules():
    return [name for name in jaxlin.__all__ if (ROOT / "jaxlin" / name).with_suffix(".py").exists()
            or (ROOT / "jaxlin" / name).is_dir()]  # fmt: skip


def test_every_public_name_has_its_place(site):
    modules = public_modules()
    assert len(modules) > 20
    for module in modules:
        page = (site / "jaxlin" / f"{module}.html").read_text(encoding="utf-8")
        names = getattr(getattr(jaxlin, module), "__all__", [])
        # a function that is called as its file is documented on a page of its own
        missing = [
            name
            for name in names
            if f'id="{name}"' not in page
            and not (site / "jaxlin" / module / f"{name}.html").exists()
        ]
        assert missing == [], module


def test_pages_stand_alone_and_leave_no_formula_undrawn(site):
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//[^"]*"', page) == [], path
        assert "Alias for field number" not in page, path
        text = re.sub(r"(?s)<pre>.*?</pre>", "", page)
        assert "$$" not in text, path
    losses = (site / "jaxlin" / "losses.html").read_text(encoding="utf-8")
    assert losses.count("<math") >= 7
    assert "ArrayLike" in losses
    assert "numpy.number" not in losses


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.xdist_group("chromium")
def test_a_browser_draws_the_formulas(site, tmp_path):
    """A script of the test's own measures what the browser drew, and leaves it in the title."""
    page = (site / "jaxlin" / "losses.html").read_text(encoding="utf-8")
    measure = (
        "<script>addEventListener('load', () => { document.title = 'drawn ' + "
        "[...document.querySelectorAll('math[display=block]')].map(m => "
        "Math.round(m.querySelector('mrow').getBoundingClientRect().width)).join(' ') })</script>"
    )
    probe = tmp_path / "measured.html"
    probe.write_text(page.replace("</body>", measure + "</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command = [CHROMIUM, *flags, "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    widths = [int(w) for w in re.search(r"<title>drawn ([\d ]+)</title>", done.stdout)[1].split()]
    assert len(widths) == 7
    assert min(widths) > 50  # pixels; a formula that is not drawn as such has none, or one letter's


def test_the_front_page_names_every_module_and_every_solver_file_it_tells_of():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "experiments" / "rooms.py")
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    rows = rooms.layers()
    assert len(rows) == len(rooms.WHAT)
    for what, modules in zip(rooms.WHAT, rows, strict=True):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {what} |"))
        assert re.findall(r"`(\w+)`", line.split("|")[2]) == modules
    files = set(re.findall(r"`(\w+\.py)`", text.split("## The solvers")[1]))
    assert len(files) > 15
    assert [name for name in sorted(files) if not (ROOT / "jaxlin/solvers" / name).exists()] == []


def test_the_table_of_experiments_names_every_script():
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    scripts = {
        path.relative_to(ROOT / "experiments").as_posix()
        for part in (".", "benchmarks", "guides")
        for path in (ROOT / "experiments" / part).glob("*.py")
    }
    missing = {name for name in scripts if name not in text and Path(name).name not in text}
    assert missing == set()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "experiments" / link).exists(), link
    page = (ROOT / "experiments" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    anchors = set(re.findall(r"benchmarks/README\.md#([^)]+)\)", text))
    assert anchors
    assert anchors <= set(re.findall(r'<a id="([^"]+)">', page))


def test_scripts_find_what_they_take_from_each_other():
    """No script of experiments/ imports from its neighbors a name that has moved."""
    for folder in (ROOT / "experiments", ROOT / "experiments" / "benchmarks"):
        trees = {p.stem: ast.parse(p.read_text(encoding="utf-8")) for p in folder.glob("*.py")}
        for name, tree in trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module in trees:
                    there = names_of(trees[node.module])
                    assert {alias.name for alias in node.names} <= there, name


def names_of(tree: ast.Module) -> set[str]:
    """What a module defines or imports at its top level, its branches included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found
