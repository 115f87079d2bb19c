#!/usr/bin/env python3
"""Writes the licences of the crates that the program is built from, with their texts, and a bill of materials
(CycloneDX 1.5). Usage: third-party.py LICENCES SBOM"""

import json
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("license", "licence", "copying", "notice", "copyright", "unlicense")


def metadata():
    host = subprocess.run(["rustc", "--print", "host-tuple"], capture_output=True, text=True, check=True)
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", host.stdout.strip()]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def built_in(data):
    """The crates of the program, but for those that only its tests and its build use."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    found, waiting = set(), [data["resolve"]["root"]]
    while waiting:
        crate = waiting.pop()
        if crate in found:
            continue
        found.add(crate)
        for dependency in nodes[crate]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    packages = {package["id"]: package for package in data["packages"]}
    return sorted((packages[crate] for crate in found), key=lambda it: (it["name"], it["version"]))


def texts(package):
    directory = Path(package["manifest_path"]).parent
    files = [path for path in sorted(directory.iterdir()) if path.is_file()]
    return [path.read_text(errors="replace") for path in files if path.name.lower().startswith(TEXTS)]


def component(package):
    reference = f"pkg:cargo/{package['name']}@{package['version']}"
    result = {"type": "library", "bom-ref": reference, "name": package["name"], "version": package["version"]}
    if package["license"]:
        result["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return {**result, "purl": reference}


def main():
    licences, sbom = map(Path, sys.argv[1:])
    crates = built_in(metadata())
    own = next(crate for crate in crates if crate["name"] == "syncgate")
    others = [crate for crate in crates if crate["source"]]
    parts = [f"syncgate {own['version']} is built from these crates."]
    for crate in others:
        head = f"{crate['name']} {crate['version']}, {crate['license'] or 'see below'}"
        parts.append("\n\n".join([f"{'=' * 78}\n{head}", *(text.strip() for text in texts(crate))]))
    licences.write_text("\n\n".join(parts) + "\n")
    names = "\n".join(f"{crate['name']} {crate['version']}" for crate in others)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same for the same crates.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, names)}",
        "version": 1,
        "metadata": {"component": {**component(own), "type": "application"}},
        "components": [component(crate) for crate in others],
    }
    sbom.write_text(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
    main()
