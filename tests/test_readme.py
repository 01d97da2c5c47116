"""The README does what it says: its Python runs, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sdelab.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"cd", "git", "pip", "python", "python3", "source", "export"}


def as_script(markdown: str) -> str:
    """The Python blocks as one program; every other line is blank, so that tracebacks give the README's lines."""
    lines = [""] * (markdown.count("\n") + 1)
    for block in FENCE.finditer(markdown):
        if block["language"] == "python":
            first = markdown[: block.start("code")].count("\n")
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def commands(markdown: str) -> list[list[str]]:
    """The words of every command in the bash blocks: continued lines joined, comments dropped, `&&` split."""
    found = []
    for block in FENCE.finditer(markdown):
        if block["language"] in {"bash", "sh", "shell", "console"}:
            for line in block["code"].replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|\|", line.removeprefix("$ ")):
                    if words := shlex.split(part, comments=True):
                        found.append(words)
    return found


def complaint(words: list[str], root: Path) -> str:
    """What a command names that is not there; empty if all is."""
    program, *arguments = words
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), re.MULTILINE))
        missing = [a for a in arguments if "=" not in a and not a.startswith("-") and a not in targets]
        return f"make targets {missing}; known: {sorted(targets)}" if missing else ""
    if program == "sdelab":
        if not arguments or arguments[0] not in COMMANDS:
            return f"subcommand {arguments[:1]}; known: {sorted(COMMANDS)}"
    elif program.startswith("python") and arguments[:1] == ["-m"]:
        module = root.joinpath(*arguments[1].split("."))
        known_elsewhere = arguments[1] in {"venv", "pip", "pytest"}
        if not known_elsewhere and not module.with_suffix(".py").exists() and not (module / "__main__.py").exists():
            return f"module {arguments[1]}"
    elif program not in SHELL:
        return f"program {program}"
    configs = [word for word in re.split(r"[\s=]", " ".join(arguments)) if word.startswith("configs/")]
    return "".join(f"file {config}" for config in configs if not (root / config.split(":")[0]).exists())


@pytest.mark.slow
def test_python_blocks_run(tmp_path):
    script = tmp_path / "README.py"
    script.write_text(as_script((ROOT / "README.md").read_text()))
    assert script.read_text().strip()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"},
    )
    assert process.returncode == 0, process.stderr


def test_commands_exist():
    found = commands((ROOT / "README.md").read_text())
    assert ["make", "quickstart"] in found
    assert ["make", "test"] in found
    assert [(words, complaint(words, ROOT)) for words in found if complaint(words, ROOT)] == []


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


SAMPLE = """# A title
```python
a = 1
```
words
```bash
make quickstart  # a comment
sdelab train --config configs/digits/none.py \\
    --workdir runs/a && sdelab conjure --workdir runs/a
make disappear
python -m experiments.overhead
rocket launch
```
```
not = python(
```
```python
raise ValueError(a)
```
"""


def test_blocks_share_a_namespace_and_keep_their_lines():
    with pytest.raises(ValueError, match="1") as error:
        exec(compile(as_script(SAMPLE), "README.md", "exec"), {})
    assert error.traceback[-1].lineno + 1 == SAMPLE.splitlines().index("raise ValueError(a)") + 1


def test_missing_commands_are_found(tmp_path):
    (tmp_path / "experiments" / "overhead").mkdir(parents=True)
    (tmp_path / "experiments" / "overhead" / "__main__.py").touch()
    (tmp_path / "Makefile").write_text("quickstart: .venv\n\tpython\n")
    complaints = [complaint(words, tmp_path) for words in commands(SAMPLE)]
    assert [complaint.split(" [")[0].split(";")[0] for complaint in complaints] == [
        "",
        "file configs/digits/none.py",
        "subcommand",
        "make targets",
        "",
        "program rocket",
    ]
