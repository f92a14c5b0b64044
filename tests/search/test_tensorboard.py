from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from search.tensorboard import TensorBoard


def events(folder):
    """The summaries in the files of a folder: TFRecords of 8 bytes of length, 4 of its checksum, content, 4 more."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while len(content) >= 8 and len(content) >= 16 + (size := int.from_bytes(content[:8], "little")):
            event = Event.FromString(content[12 : 12 + size])
            yield from ((event.step, value) for value in event.summary.value)
            content = content[16 + size :]


def test_scalars_appear_as_they_come_and_parameters_at_the_end(tmp_path, monkeypatch):
    params = {"lr": 0.01, "architecture": "simple", "ema": False}
    trial = SimpleNamespace(config={"number": 7, "config": {}, "params": params})
    monkeypatch.setattr("search.tensorboard.FLUSH_SECONDS", 0.05)
    board = TensorBoard(tmp_path, "val_mAP")
    for epoch, score in ((1, 0.25), (2, 0.5)):
        result = {"epoch": epoch, "val_mAP": score, "train_loss": 1.0, "seconds": 3.0, "pid": 12, "done": False}
        board.on_trial_result(0, [], trial, result)
        seen = []
        while (epoch, score) not in seen:  # while the trial runs, in the end
            seen = [(step, v.simple_value) for step, v in events(tmp_path / "0007") if v.tag == "val_mAP"]
    board.on_trial_complete(0, [], trial)
    found = [v for _, v in events(tmp_path / "0007")]
    assert {v.tag for v in found if not v.tag.startswith("_")} == {"val_mAP", "train_loss", "seconds"}
    starts = [v for v in found if v.tag == "_hparams_/session_start_info"]
    known = HParamsPluginData.FromString(starts[0].metadata.plugin_data.content).session_start_info.hparams
    assert known["lr"].number_value == pytest.approx(0.01)
    assert known["architecture"].string_value == "simple"
    assert known["ema"].bool_value is False
    assert set(known) == set(params)


def test_a_trial_that_never_reported_leaves_nothing(tmp_path):
    TensorBoard(tmp_path, "val_mAP").on_trial_complete(0, [], SimpleNamespace(config={"number": 1}))
    assert not list(tmp_path.iterdir())
