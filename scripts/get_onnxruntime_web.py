"""Make the files of ONNX Runtime Web that come along (src/sfumato/exchange/html/runtime) from its npm package.

    python scripts/get_onnxruntime_web.py        needs npm, and the network

The package's SHA-512 is checked; the files are the same on every machine with the same zlib.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort-wasm-simd-threaded.wasm", "ort.wasm.bundle.min.mjs")
OUT = Path(__file__).resolve().parents[1] / "src" / "sfumato" / "exchange" / "html" / "runtime"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != SHA512:
            raise SystemExit(f"{archive.name} is not the package whose SHA-512 is written here: {found}")
        with tarfile.open(archive) as package:
            for name in FILES:
                file = package.extractfile(f"package/dist/{name}")
                assert file is not None
                lines = file.read()
                if name.endswith(".mjs"):
                    lines = b"".join(line for line in lines.splitlines(True) if b"sourceMappingURL" not in line)
                (OUT / f"{name}.gz").write_bytes(gzip.compress(lines, 9, mtime=0))
                print(OUT / f"{name}.gz")


if __name__ == "__main__":
    main()
