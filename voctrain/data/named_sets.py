"""Sets that have a name instead of a folder: they are made or downloaded once, into the user's cache folder."""

import hashlib
from pathlib import Path

from voctrain.data.cache import build_folder, cache_dir

NAMES = ("sample", "voc2009")
VOC2009_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2009/VOCtrainval_11-May-2009.tar"
VOC2009_MD5 = ("a3e00b113cfcfebf17e343f59da3caa1", "59065e4b188729180974ef6572f6a212")  # both are in circulation


def folder_of(path: str | Path) -> Path:
    """The folder meant by `path`, which is one or, as a plain string, "sample" or "voc2009".

    Raises `ValueError` where the cache folder cannot be written or the download fails.
    """
    if path not in NAMES:
        return Path(path).expanduser()
    try:
        return _sample() if path == "sample" else build_folder(cache_dir() / "voc2009", _download_voc2009)
    except OSError as error:
        raise ValueError(
            f"{path} needs a cache folder that can be written, but got {error}: set XDG_CACHE_HOME to one"
        ) from error


def _sample() -> Path:
    from voctrain.data import sample

    drawn_by = hashlib.sha256(Path(sample.__file__).read_bytes()).hexdigest()  # other code draws another set
    return build_folder(cache_dir() / f"sample-{drawn_by[:8]}", sample.make_sample)


def _download_voc2009(folder: Path) -> None:
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive, extract_archive

    try:
        download_and_extract_archive(VOC2009_URL, folder, md5=VOC2009_MD5[0])
    except (OSError, RuntimeError) as error:  # no network, disk full; another md5
        archive = folder / Path(VOC2009_URL).name
        if not check_integrity(archive, VOC2009_MD5[1]):
            raise ValueError(
                f"voc2009 could not be downloaded from {VOC2009_URL} ({error}): connect to a network, or unpack that"
                f" archive yourself and give its folder"
            ) from error
        extract_archive(archive, folder)
    (folder / Path(VOC2009_URL).name).unlink()
