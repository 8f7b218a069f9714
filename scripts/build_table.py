#!/usr/bin/env python3
"""The graphs in the cache -> a Markdown table of what building and simulating them took."""

from __future__ import annotations

import json

from whisper_npu.graphs.recipe import MANIFEST, graphs_folder


def row(manifest: dict) -> str:  # type: ignore[type-arg]
    """One line."""
    outputs = manifest["verified"]["outputs"]
    width = manifest["outputs"]["key_0"][2]
    placement = manifest["placement"]
    left = ", ".join(f"{n} {name}" for name, n in placement["elsewhere"].items()) or "none"
    return (
        f"| {width} x {len(outputs) // 2} | {manifest['target']} | {manifest['precision']} "
        f"| {manifest['window']} s | {manifest['build_seconds']:.0f} s "
        f"| {manifest['bytes'] / 1e6:.1f} MB | {manifest['build_peak_bytes'] / 1e6:.0f} "
        f"({manifest['verified']['peak_bytes'] / 1e6:.0f}) MB "
        f"| {min(o['cosine'] for o in outputs):.6f} | {max(o['error'] for o in outputs):.1e} "
        f"| {words(manifest['verified']['words'])} | {left} |"
    )


def words(windows: list) -> str:  # type: ignore[type-arg]
    """How many of all."""
    different, all_words = (sum(w[key] for w in windows) for key in ("n_different", "n_words"))
    return f"{different} of {all_words}"


def main() -> None:
    """Command line."""
    print(
        "| width x layers | chip | | window | build | size | memory | cosine | error "
        "| words that differ | on the CPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    manifests = [json.loads(p.read_text()) for p in graphs_folder().glob(f"*/{MANIFEST}")]
    manifests.sort(key=lambda m: (m["outputs"]["key_0"][2], m["target"]))
    for manifest in manifests:
        print(row(manifest))


if __name__ == "__main__":
    main()
