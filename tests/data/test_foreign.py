"""Formats that are not read: each is named, with the way out, in a folder and given by its own path."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import open_data, open_source
from sfumato.data.formats.decode import read_picture
from sfumato.data.sources.protocol import Blob, Unreadable
from sfumato.errors import UserError

from .encode import saved


def torch_file(new: bool) -> bytes:
    """A tensor as torch writes it."""
    content = io.BytesIO()
    torch.save(torch.zeros(2, 3, 8, 8), content, _use_new_zipfile_serialization=new)
    return content.getvalue()


def npz() -> bytes:
    """An array as numpy writes it."""
    content = io.BytesIO()
    np.savez(content, images=np.zeros((2, 8, 8), np.uint8))
    return content.getvalue()


FILES = {
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "a HEIC picture", "convert it to JPEG or PNG"),
    "mif1": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40), "a HEIC picture", "convert it to JPEG or PNG"),
    "dicom": (bytes(128) + b"DICM" + bytes(40), "a DICOM file", "pydicom.dcmread"),
    "pt": (torch_file(new=True), "a file of torch.save", "torch.load"),
    "pth": (torch_file(new=False), "a file of torch.save", "torch.load"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle", "numpy.save"),
    "npz": (npz(), "an .npz of arrays", "give its own path"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file", "h5py"),
    "fits": (b"SIMPLE  =                    T", "a FITS file", "astropy"),
    "nifti": (bytes(344) + b"n+1\0", "a NIfTI volume", "nibabel"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform", "a MATLAB file", "scipy"),
    "film": (b"\0\0\0\x18ftypisom" + bytes(40), "a film", "ffmpeg"),
    "jxl": (b"\xff\x0a" + bytes(40), "a JPEG XL picture", "djxl"),
    "psd": (b"8BPS\0\1" + bytes(40), "a Photoshop drawing", "PNG"),
}


@pytest.mark.parametrize(("data", "name", "way"), FILES.values(), ids=FILES)
def test_a_foreign_file_among_pictures_is_named(data: bytes, name: str, way: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_picture(Blob(data))
    assert caught.value.reason.startswith(f"not an image that is read here: {name} (")
    assert way in caught.value.reason
    assert "damaged" not in caught.value.reason


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "npz"])
def test_a_foreign_file_by_its_own_path_is_named(kind: str, tmp_path: Path) -> None:
    data, name, way = FILES[kind]
    (tmp_path / f"set.{kind}").write_bytes(data)
    with pytest.raises(UserError, match=rf"set\.{kind}' is {name}: ") as caught:
        open_source(str(tmp_path / f"set.{kind}"))
    assert way in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_avif_is_no_heic() -> None:
    """AVIF's files name `mif1` among their brands too."""
    whole = saved(Image.new("RGB", (32, 32), "red"), "AVIF")
    assert b"mif1" in whole[:64]
    with pytest.raises(Unreadable) as caught:
        read_picture(Blob(whole[: len(whole) // 2]))
    assert "HEIC" not in caught.value.reason


def test_a_single_picture_is_told_from_a_folder(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match=r"one\.png' is a file of a single picture: give the folder that holds it"):
        open_source(str(tmp_path / "one.png"))


def test_a_foreign_file_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(folder / f"{k}.png")
    (folder / "scan.dcm").write_bytes(FILES["dicom"][0])
    data = open_data(DataConfig(str(folder)))
    assert len(data) == 2
    assert "a DICOM file" in data.summary()
