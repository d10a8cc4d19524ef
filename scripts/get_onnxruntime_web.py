"""Make the files of ONNX Runtime Web that come along (src/sfumato/exchange/html/runtime) from its npm package.

    python scripts/get_onnxruntime_web.py        needs npm, and the network

The package's SHA-512 is checked, and the SHA-256 of what is taken from it. A file whose content is there already is
left as it is, since another zlib compresses the same content to other bytes.
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
FILES = {
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.wasm.bundle.min.mjs": "c9f34add33b618546b26b7bc48811814ce319bb6e2be68ddb306618ae0a11812",
}
"""What is taken, with the SHA-256 of its content as it comes along."""
OUT = Path(__file__).resolve().parents[1] / "src" / "sfumato" / "exchange" / "html" / "runtime"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != SHA512:
            raise SystemExit(f"{archive.name} is not the package whose SHA-512 is written here: {found}")
        with tarfile.open(archive) as package:
            for name, expected in FILES.items():
                file = package.extractfile(f"package/dist/{name}")
                assert file is not None
                lines = file.read()
                if name.endswith(".mjs"):
                    lines = b"".join(line for line in lines.splitlines(True) if b"sourceMappingURL" not in line)
                if hashlib.sha256(lines).hexdigest() != expected:
                    raise SystemExit(f"{name} is not the file whose SHA-256 is written here")
                path = OUT / f"{name}.gz"
                same = path.is_file() and gzip.decompress(path.read_bytes()) == lines
                if not same:
                    path.write_bytes(gzip.compress(lines, 9, mtime=0))
                print(f"{path}: {'is there already' if same else 'written'}")


if __name__ == "__main__":
    main()
