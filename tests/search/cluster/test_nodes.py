import dataclasses
import sys

import pytest

from search.cluster import nodes
from search.cluster.nodes import IMPORTS, Node, check_nodes, software
from search.run_folder.paths import RunPaths
from tests.test_architecture import imported, sources, top

HERE = software(has_gpus=False)


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Check a cluster of this machine, and of a node gpu-7 that has a GPU and this software, or sees no file."""

    def command(there=HERE, sees=True):
        node, here = Node("1", "gpu-7", "10.0.0.7", {"CPU": 8, "GPU": 1}), Node("0", "head", "10.0.0.1", {"CPU": 8})
        answers = {nodes.node_software: (HERE, there), nodes.can_write_beside: (True, sees)}
        monkeypatch.setattr(nodes, "ask_nodes", lambda asked, question, _: zip(asked, answers[question], strict=True))
        check_nodes([here, node], RunPaths(tmp_path))

    return command


def test_an_equal_node_is_taken(check):
    check(dataclasses.replace(HERE, cuda=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"missing": ("timm", "torch"), "torch": None},
            "node gpu-7 lacks timm, torch: install there with pip what pyproject",
        ),
        ({"python": "3.9"}, f"node gpu-7 has Python 3.9, but this machine has {HERE.python}: use one version"),
        ({"torch": "1.9.1"}, "node gpu-7 has torch 1.9.1, but this machine has"),
        ({"cuda": False}, "node gpu-7 has GPUs for Ray, but PyTorch finds none there: install its driver"),
    ],
)
def test_what_a_node_lacks_is_named(change, message, check):
    with pytest.raises(ValueError, match=f"^{message}"):
        check(dataclasses.replace(HERE, **{"cuda": True, **change}))


def test_another_build_of_one_version_is_taken(check):
    check(dataclasses.replace(HERE, cuda=True, torch=f"{'.'.join(HERE.torch.split('.')[:2])}.99+cu999"))


def test_a_folder_that_a_node_does_not_see_is_refused(check, tmp_path):
    with pytest.raises(ValueError, match=f"node gpu-7 cannot read or write {tmp_path}, where checkpoints are written"):
        check(dataclasses.replace(HERE, cuda=True), sees=False)


def test_all_that_a_training_imports_is_asked_for():
    trained = set().union(*(top(imported(file)) for file in sources("voctrain")))
    outside = {name for name in trained if name not in (*sys.stdlib_module_names, "voctrain")}
    weights = {name for name in IMPORTS if name.endswith("_pytorch_model")}
    assert outside - {"pycocotools"} == {*IMPORTS} - weights
    assert HERE.missing == ()
