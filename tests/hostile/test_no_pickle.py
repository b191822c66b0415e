"""Nothing that the engine or the command line imports or calls can run code that a file brings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
# Each of these reads a pickle, or text as code.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
CALLS = {"eval", "exec", "compile", "__import__"}
READERS = {
    "read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.load",
    "joblib.load",
    "fromfile",
}
NUMPY = {"np.load", "numpy.load"}


def complaints(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        else:
            names = []
        yield from (f"imports {name}" for name in names if name in MODULES)
        if isinstance(node, ast.Call):
            yield from _calls(node)
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield "allows a pickle"


def _calls(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if isinstance(node.func, ast.Name) and name in CALLS:
        yield f"calls {name}"
    if name in READERS or any(name.endswith(f".{reader}") for reader in READERS):
        yield f"calls {name}"
    if name in NUMPY and not any(word.arg == "allow_pickle" for word in node.keywords):
        yield f"calls {name} without allow_pickle=False"


def test_no_pickle_and_no_code_is_read_at_runtime() -> None:
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): said
        for path in SOURCES
        if (said := list(complaints(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch.nn",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=wanted)",
        "yaml.load(text)",
        "exec(code)",
        "eval('1')",
        "pandas.read_pickle(path)",
    ],
)
def test_the_test_above_sees(code: str) -> None:
    assert list(complaints(ast.parse(code)))


def test_celery_is_told_to_speak_json_alone(tmp_path: Path) -> None:
    """Its other serialisers are pickle and YAML; a broker that somebody reaches must not become a shell."""
    from faceavatar_cli.queue.app import make_app
    from faceavatar_cli.queue.settings import QueueSettings

    told = make_app(QueueSettings("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1", str(tmp_path))).conf
    assert told.accept_content == told.result_accept_content == ["json"]
    assert told.task_serializer == told.result_serializer == told.event_serializer == "json"
