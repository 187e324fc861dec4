"""The command ``model``, as people use it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from core.settings import Settings
from model.cli import app
from tests.tiny import make_tiny_artifact

pytestmark = pytest.mark.tensorflow
LIGHT = ("model.artifact", "model.cli", "model.formats", "model.predictor", "model.preprocess", "model.runtime")


def model(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def ok(*words: str) -> str:
    result = model(*words)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_model_is_made_listed_and_shown() -> None:
    assert "not trained" in ok("init", "--name", "first")

    assert "first" in ok("list")
    shown = ok("show", "first")
    assert "11326913" in shown
    assert "random weights, seed 0" in shown


def test_a_model_file_is_imported_and_shown_as_json(tiny: Any, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model.keras")

    ok("import", str(tmp_path / "model.keras"), "--name", "mine", "--preprocess", "rgb-area", "--flip")

    shown = json.loads(ok("show", "mine", "--json"))
    assert (shown["name"], shown["preprocess"], shown["trained"]) == ("mine", "rgb-area", True)
    assert shown["flip"] is True
    assert shown in json.loads(ok("list", "--json"))


def test_a_name_that_is_taken_needs_overwrite(settings: Settings, tiny: Any, tmp_path: Path) -> None:
    make_tiny_artifact(settings, "mine")
    tiny.save(tmp_path / "model.keras")
    words = ("import", str(tmp_path / "model.keras"), "--name", "mine", "--untrained")

    refused = model(*words)
    assert "exists" in str(refused.exception)
    ok(*words, "--overwrite")

    assert json.loads(ok("show", "mine", "--json"))["trained"] is False


def test_a_broken_artifact_is_listed_as_such(settings: Settings) -> None:
    make_tiny_artifact(settings, "mine")
    (settings.models_dir / "mine" / "manifest.json").write_text("{}")

    assert "broken" in ok("list")
    (found,) = (row for row in json.loads(ok("list", "--json")) if row["name"] == "mine")
    assert "manifest" in found["error"]


def test_a_mistake_is_one_line_and_the_exit_code_of_its_kind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model", "show", "nothing"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr.startswith("error: model nothing not found")
    assert done.stderr.count("\n") == 1


def test_help_and_light_modules_do_not_load_tensorflow() -> None:
    code = f"import sys, {', '.join(LIGHT)}\nassert not {{'tensorflow', 'keras', 'h5py'}} & set(sys.modules), 'heavy'\n"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, model.cli, model.artifact\nassert not {'tensorflow', 'keras', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", ["init", "import", "list", "show"])
def test_every_command_has_an_example_in_its_help(command: str) -> None:
    assert f"model {command}" in ok(command, "--help")


def test_without_tensorflow_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.argv = ['model', 'init']\nfrom model.cli import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 7
    assert done.stderr.startswith("error: TensorFlow is not installed: pip install 'facesieve[worker]'; ")
    assert done.stderr.count("\n") == 1
