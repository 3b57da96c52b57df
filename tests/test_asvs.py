"""The checklist of ASVS: complete, its sums right, and everything that it names there. And what no other test shows: no
code made of input, no HTML parsed, a password field as it should be."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "asvs.md").read_text()
#: Requirements of level 1 of ASVS 5.0.0, by chapter and section (from the standard's own table).
LEVEL_1 = """
1.2.1 1.2.2 1.2.3 1.2.4 1.2.5 1.3.1 1.3.2 1.5.1 2.1.1 2.2.1 2.2.2 2.3.1 3.2.1 3.2.2 3.3.1 3.4.1 3.4.2 3.5.1 3.5.2
3.5.3 4.1.1 4.4.1 5.2.1 5.2.2 5.3.1 5.3.2 6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 6.3.1 6.3.2 6.4.1
6.4.2 7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2 8.1.1 8.2.1 8.2.2 8.3.1 9.1.1 9.1.2 9.1.3 9.2.1 10.4.1 10.4.2 10.4.3
10.4.4 10.4.5 11.3.1 11.3.2 11.4.1 12.1.1 12.2.1 12.2.2 13.4.1 14.2.1 14.3.1 15.1.1 15.2.1 15.3.1
""".split()  # noqa: SIM905
FILE = re.compile(r"`([\w./-]+\.(?:py|js|lua|md|json|html|sql|txt|gpu)|\.dockerignore)(?:::(\w+))?`")


def rows() -> dict[str, str]:
    """Number -> cell "shown by"."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"\d+\.\d+\.\d+", cells[0]):
            assert len(cells) == 4, line
            found[cells[0]] = cells[3]
    return found


ROWS = rows()


def kind(shown: str) -> str:
    return shown.partition(":")[0] if shown.startswith(("gap:", "n/a:")) else "shown"


def test_all_seventy_are_there_in_order() -> None:
    assert len(LEVEL_1) == 70
    assert list(ROWS) == LEVEL_1


@pytest.mark.parametrize("number", LEVEL_1)
def test_what_shows_a_line_exists(number: str) -> None:
    shown = ROWS[number]
    named = FILE.findall(shown)
    if kind(shown) == "shown":
        assert named, "a line that is shown names what shows it"
        assert FILE.sub("", shown).strip() == "", "files and tests, and nothing else"
    else:
        why = shown.partition(":")[2].strip()
        if other := re.match(r"as ([\d.]+\d)", why):
            why = ROWS[other[1]].partition(":")[2].strip()
        assert len(why) > 10, "why?"


def test_every_file_and_test_that_the_page_names_exists() -> None:
    named = FILE.findall(PAGE)
    assert len(named) > 50
    for file, test in named:
        path = ROOT / file
        assert path.is_file(), file
        if test:
            assert re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE), f"{file}::{test}"


def test_sums_are_right() -> None:
    kinds = [kind(shown) for shown in ROWS.values()]
    sums = (kinds.count("shown"), kinds.count("gap"), kinds.count("n/a"))
    assert "**{} shown, {} gaps, {} not applicable.**".format(*sums) in PAGE, sums


MODULES = sorted(path for room in ("serve", "pipelines", "queue") for path in (ROOT / room).glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_code_and_no_command_is_made_of_input(path: Path) -> None:
    """Processes are started by a few modules that no request reaches; nothing evaluates, unpickles or asks a shell."""
    starters = {"issuer_process.py", "redis_server.py", "haproxy.py", "prove.py", "process_memory.py"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            names = {f"{module}.{alias.name}".strip(".").split(".")[0] for alias in node.names}
            assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "xml", "lxml"}
            assert path.name in starters or not names & {"subprocess", "pty"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
            assert path.name in starters or not re.match(r"os\.(exec|spawn|posix_spawn)", called)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert "shell" not in words
            if called == "torch.load":
                assert words["weights_only"] == "True"
            assert words.get("allow_pickle", "False") == "False"


def test_page_parses_no_html_and_evaluates_nothing() -> None:
    scripts = list((ROOT / "serve" / "web").glob("*.js"))
    assert len(scripts) > 10
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|Fragment\(|\beval\(|new Function"
    for path in scripts:
        assert not re.search(sinks, path.read_text()), path.name


def test_password_field_is_masked_and_open_to_password_managers() -> None:
    html = (ROOT / "serve" / "web" / "index.html").read_text()
    (field,) = re.findall(r'<input[^>]*id="password"[^>]*>', html)
    assert 'type="password"' in field
    assert 'autocomplete="current-password"' in field
    assert "maxlength" not in field
    assert "pattern" not in field
    script = (ROOT / "serve" / "web" / "sign_in.js").read_text()
    assert "paste" not in script
