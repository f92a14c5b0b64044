"""The options of the commands that use what a search has found."""

from dataclasses import dataclass

from search.command_line import integer, option, scale, seconds
from search.options import ResourceOptions

FEW_IMAGES = 5000  # a set with fewer is divided into folds


@dataclass(frozen=True, kw_only=True)
class FinalOptions(ResourceOptions):
    """The options of `search.final`."""

    run: str | None = option(
        None, "a run folder or URI; the final model goes into its final/", metavar="RUN", positional=True
    )
    config: str | None = option(
        None, "instead of a run: one configuration, together with --data", metavar="best.json", shown="none"
    )
    data: str | None = option(None, "a VOC-style folder, voc2009, or sample", metavar="DIR", shown="the run's")
    top: int = option(
        3,
        "number of configurations to retrain; one of several is the portfolio's first",
        parse=integer(1),
        metavar="K",
    )
    folds: int | None = option(
        None,
        "hold each labeled image out once, in this many parts; 1 uses the run's split",
        parse=integer(1),
        metavar="K",
        shown=f"5 for fewer than {FEW_IMAGES:,} images, otherwise 1",
    )
    seeds: int | None = option(
        None,
        "number of seeds of each configuration and fold",
        parse=integer(1),
        metavar="N",
        shown="1 with folds, otherwise 3",
    )
    single: bool = option(False, "hand over one network, not an ensemble")
    max_members: int | None = option(
        None, "most networks in an ensemble", parse=integer(1), metavar="N", shown="all that help"
    )
    time_budget: float | None = option(
        None,
        "retrain only as many configurations as fit in this time",
        parse=seconds,
        metavar="TIME",
        shown="unlimited",
    )
    image_size: int | None = option(
        None, "side of the square images, in pixels", parse=integer(28), metavar="PX", shown="the search's"
    )
    self_training: bool = option(
        False, "also train on unlabeled images, labeled by the retrained models; kept if validation says that it pays"
    )
    unlabeled: str | None = option(
        None, "with --self-training: a folder of images", metavar="DIR", shown="the unlabeled or test images of the set"
    )
    out: str | None = option(
        None, "with --config: the folder that final/ is created in", metavar="DIR", shown="runs/<task>-final"
    )


@dataclass(frozen=True, kw_only=True)
class AveragingOptions:
    """Test-time augmentation."""

    flip: bool = option(False, "average the predictions of the images and the mirrored images")
    scales: tuple[float, ...] = option(
        (1.0,), "average masks over these image scales", parse=scale, metavar="F", many=True, shown="1"
    )


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(AveragingOptions):
    """The options of `search.submit` beside one --<task> RUN for each task that the competition scores."""

    data: str = option("", "a VOC-style folder with test images, voc2009, or sample", metavar="DIR", shown="required")
    gate: bool = option(False, "suppress classes in the masks that the classifier does not see; needs both runs")
    out: str = option("submission.csv", "the file to write", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(AveragingOptions):
    """The options of `search.predict`."""

    run: str = option("", "a run folder or URI, or a checkpoint file", metavar="RUN", positional=True, required=True)
    images: tuple[str, ...] = option(
        (), "image files, and folders of them", metavar="IMAGE", positional=True, many=True
    )
    out: str | None = option(
        None, "the folder to write to", metavar="DIR", shown="predictions/ in the run folder, or beside the checkpoint"
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of `search.export`."""

    run: str = option("", "a run folder or URI, or a checkpoint file", metavar="RUN", positional=True, required=True)
    to: str = option(
        "onnx",
        "the format: onnx, torchscript (torch.jit.load), torch (a .pt2 file for torch.export.load), or safetensors"
        " (weights and metadata for voctrain.deploy.load)",
        choices=("onnx", "torchscript", "safetensors", "torch"),
    )
    out: str | None = option(
        None, "the file to write", metavar="FILE", shown="beside the checkpoint, such as RUN/final/model.onnx"
    )


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `search.check`."""

    run: str = option("", "a run folder or URI", metavar="RUN", positional=True, required=True)
    repair: bool = option(False, "make damaged files again from what is whole; what is lost is trained again")


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The options of `search.audit`."""

    run: str = option("", "a run folder or URI", metavar="RUN", positional=True, required=True)
    top: int = option(
        100, "rows of the table for labels that are there, and for such that are not", parse=integer(1), metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The options of `search.report`."""

    runs: tuple[str, ...] = option(
        (),
        "run folders or URIs; several are compared and must be of one task",
        metavar="RUN",
        positional=True,
        many=True,
    )
    out: str = option("compare.html", "the file that a comparison is written to", metavar="FILE")
    best: bool = option(False, "print the best configuration instead")
    format: str = option(
        "yaml", "the format of --best; py is a script that trains this configuration", choices=("yaml", "json", "py")
    )
    now: bool = option(False, "do not wait for processors that a running search leaves idle")
