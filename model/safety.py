"""Look for danger in a model file before TensorFlow or Keras loads it. Keras' own safe mode comes on top."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import ModelBrokenError, UnsafeModelError
from model.runtime import import_tensorflow

#: A ``.keras`` file that unpacks to more than this is refused; the card's network takes 45 MB.
MAX_UNPACKED_BYTES = 2 * 2**30
#: Operations that read or write files, talk to other machines or run Python. ``PrintV2`` prints to files, too.
_FORBIDDEN = re.compile(
    "PyFunc|File(?!name|spec)|Dataset|Reader|Summary|LMDB|Debug|Load|PrintV2|ImportEvent|Send|Recv|Rpc|RemoteCall|"
    "DistributedSave|FixedUnigram|ConfigureDistributed|^Save$|^SaveSlices$|^Restore$|^RestoreSlice$"
)
#: Each SavedModel has functions of these to save and restore itself. TensorFlow calls none of them to load or serve.
_SAVER = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}


def check_keras_zip(path: Path) -> None:
    """Check that a ``.keras`` file is a zip file of a sane size.

    Raises:
        ModelBrokenError: it is no zip file.
        UnsafeModelError: it would unpack to more than 2 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelBrokenError(f"{path} is not a .keras file: {error}") from error
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnsafeModelError(f"{path} unpacks to {unpacked} bytes, the limit is {MAX_UNPACKED_BYTES}")


def check_saved_model(folder: Path) -> None:
    """Check that the graph of a SavedModel computes and does nothing else.

    Raises:
        ModelBrokenError: the folder holds no SavedModel of TensorFlow 2.
        UnsafeModelError: the graph reads or writes files or runs Python.
    """
    import_tensorflow()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel()
    try:
        saved_model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # OSError, or a kind that protobuf keeps to itself
        raise ModelBrokenError(f"{folder} holds no readable saved_model.pb: {error}") from error
    for meta in saved_model.meta_graphs:
        if not meta.object_graph_def.nodes:  # its main graph would be run to load it
            raise ModelBrokenError(f"{folder} is a SavedModel of TensorFlow 1: export it with TensorFlow 2")
        _check_ops(folder, _forbidden_ops(meta))


def _check_ops(folder: Path, forbidden: Iterable[str]) -> None:
    names = sorted(set(forbidden))
    if names:
        raise UnsafeModelError(
            f"{folder} holds operations that read or write files or run Python: {', '.join(names)}; "
            "export the bare network"
        )


def _forbidden_ops(meta: Any) -> Iterable[str]:
    """Yield the names of operations that a graph must not hold."""
    functions = meta.graph_def.library.function
    reachable = set(meta.object_graph_def.concrete_functions)
    reachable.update(name for function in functions for node in function.node_def for name in _called(node))
    for function in functions:
        for node in function.node_def:
            if _FORBIDDEN.search(node.op) or (node.op in _SAVER and function.signature.name in reachable):
                yield node.op
    yield from (node.op for node in meta.graph_def.node if _FORBIDDEN.search(node.op))


def _called(node: Any) -> Iterable[str]:
    """Yield the names of the functions that an operation may call."""
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)
