import pytest
import torch

from voctrain.config import TrainConfig
from voctrain.precision import precision_of


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 0), torch.float16),  # P100
        ((7, 0), torch.float16),  # V100
        ((7, 5), torch.float16),  # T4
        ((8, 0), torch.bfloat16),  # A100
        ((9, 0), torch.bfloat16),  # H100
    ],
)
def test_auto_depends_on_the_gpu_used(monkeypatch, capability, expected):
    capabilities = {0: (9, 9) if expected == torch.float16 else (5, 0), 1: capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    assert precision_of(TrainConfig(), torch.device("cuda", 1)) == expected


def test_auto_without_a_gpu(monkeypatch):
    for capabilities, expected in (({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda answer=capabilities: answer)
        assert precision_of(TrainConfig(), torch.device("cpu")) == expected
        assert precision_of(TrainConfig(), torch.device("mps")) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_explicit_precision_is_used_on_any_device(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device in ("cpu", "cuda", "mps"):
        assert precision_of(TrainConfig(precision=name), torch.device(device)) == getattr(torch, name)
