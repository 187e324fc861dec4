"""What an entry point loads: commands answer fast, and no parent process touches TensorFlow."""

import json
import subprocess
import sys

import pytest

MODEL_LIBRARIES = ("tensorflow", "keras", "tf_keras")
HEAVY_LIBRARIES = (*MODEL_LIBRARIES, "cv2", "numpy", "sqlalchemy.orm", "celery", "alembic", "obstore")


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after a statement."""
    script = f"import json, sys\n{statement}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def help_of(program: str) -> str:
    """Return a statement that prints a program's help and goes on."""
    return f"from {program}.cli import app\napp(['--help'], standalone_mode=False)"


@pytest.mark.parametrize("statement", ["import producer.cli", help_of("producer"), "import db.cli", help_of("db")])
def test_producer_and_db_answer_without_heavy_libraries(statement: str) -> None:
    assert loaded_by(statement).isdisjoint(HEAVY_LIBRARIES)


@pytest.mark.parametrize("statement", ["import worker.cli", help_of("worker"), "import model.cli", help_of("model")])
def test_worker_and_model_answer_without_tensorflow(statement: str) -> None:
    assert loaded_by(statement).isdisjoint(MODEL_LIBRARIES)


@pytest.mark.parametrize(
    "modules",
    [
        "core.broker, core.embedded, core.manifest, core.storage",
        "db.engine, db.ledger, db.queries, db.store",
        "producer.enqueue, producer.local, producer.session, producer.summary",
    ],
)
def test_the_modules_of_a_producer_host_load_neither_tensorflow_nor_opencv(modules: str) -> None:
    assert loaded_by(f"import {modules}").isdisjoint((*MODEL_LIBRARIES, "cv2"))


def test_a_workers_parent_loads_neither_tensorflow_nor_what_does_not_survive_a_fork() -> None:
    assert loaded_by("import worker.app, worker.process, worker.tasks").isdisjoint((*MODEL_LIBRARIES, "obstore"))
