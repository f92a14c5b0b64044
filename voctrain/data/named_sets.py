"""The built-in sets "sample" and "voc2009": generated or downloaded into the cache folder on first use."""

import hashlib
import tarfile
from pathlib import Path

from voctrain.data.cache import build_folder, cache_dir, cache_failure

NAMES = ("sample", "voc2009")
VOC2009_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2009/VOCtrainval_11-May-2009.tar"
VOC2009_MD5 = (
    "a3e00b113cfcfebf17e343f59da3caa1",
    "59065e4b188729180974ef6572f6a212",
)  # both are in circulation


def folder_of(path: str | Path) -> Path:
    """The folder of a set, given as a path or as one of the strings "sample" and "voc2009".

    Raises `ValueError` if the cache folder is not writable or the download fails.
    """
    if path not in NAMES:
        return Path(path).expanduser()
    try:
        return _sample() if path == "sample" else build_folder(cache_dir() / "voc2009", _download_voc2009)
    except OSError as error:
        raise ValueError(
            f"{path} needs a writable cache folder ({cache_failure(error)}): free space, or set XDG_CACHE_HOME to"
            " another folder"
        ) from error


def _sample() -> Path:
    from voctrain.data.sample import make_sample  # here, because it loads pandas

    # Keyed by the code that generates it: other code may generate other images.
    code = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("sample.py", "sample_classes.py"))
    return build_folder(cache_dir() / f"sample-{hashlib.sha256(code).hexdigest()[:8]}", make_sample)


def _download_voc2009(folder: Path) -> None:
    from torchvision.datasets.utils import check_integrity, download_url

    archive = folder / Path(VOC2009_URL).name
    try:
        download_url(VOC2009_URL, str(folder), md5=VOC2009_MD5[0])
    except (OSError, RuntimeError) as error:  # no network, a full disk, or the other MD5 sum
        if not check_integrity(archive, VOC2009_MD5[1]):
            raise ValueError(_unavailable(error)) from error
    try:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")  # nothing outside of the folder, and no devices
    except tarfile.TarError as error:
        raise ValueError(_unavailable(error)) from error
    archive.unlink()


def _unavailable(error: Exception) -> str:
    return (
        f"voc2009 could not be downloaded from {VOC2009_URL} ({error}): connect to a network, or unpack the archive"
        " yourself and pass its folder"
    )
