#!/usr/bin/env python3
"""Draws what the benches print.

    python benches/plot.py limits LIMITS.jsonl docs/limits.svg
    python benches/plot.py scaling SCALING.jsonl docs/scaling.svg [--threads 2]

LIMITS.jsonl holds the lines of `cargo bench -q --bench limits`, SCALING.jsonl those of `cargo bench -q --bench scaling` and, for
comparison, of `benches/scaling_peers.py`. Needs: pip install matplotlib.
"""
import argparse
import json

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLORS = {"lazuli": "#1f4e9e", "aten": "#d9822b", "inductor": "#b04a4a", "jax": "#5a9e6f"}


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def limits(rows):
    """The share of the machine's limit that each workload reaches."""
    rows = [r for r in rows if "workload" in r]
    bounds = {"memory": "#5a9e6f", "mixed": "#d9822b", "compute": "#1f4e9e"}
    figure, axes = plt.subplots(figsize=(8, 4.2))
    names = [r["workload"] for r in rows]
    axes.barh(names, [100 * r["ratio"] for r in rows], color=[bounds[r["bound"]] for r in rows])
    axes.axvline(100, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("share of what the machine does at most, %")
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in bounds.values()]
    axes.legend(handles, [f"bound by {b}" if b != "mixed" else "by both" for b in bounds], loc="lower right", fontsize=8)
    return figure


def scaling(rows, threads):
    """Bandwidth (of products: arithmetic) against size, beside the peers."""
    rows = [r for r in rows if r.get("threads") == threads and "kernel" in r]
    names = list(dict.fromkeys(r["kernel"] for r in rows))
    figure, grid = plt.subplots(2, (len(names) + 1) // 2, figsize=(12, 5.6), sharex=True)
    for axes, name in zip(grid.flat, names):
        for engine, color in COLORS.items():
            own = [r for r in rows if r["kernel"] == name and r.get("engine", "lazuli") == engine]
            own.sort(key=lambda r: r["bytes"])
            width = 2.2 if engine == "lazuli" else 1.2
            axes.plot([r["bytes"] for r in own], [r["gb_s"] for r in own], color=color, linewidth=width, label=engine)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("bytes read and written", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("GB/s", fontsize=8)
    grid.flat[0].legend(fontsize=7)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["limits", "scaling"])
    parser.add_argument("lines")
    parser.add_argument("picture")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    rows = lines(given.lines)
    figure = limits(rows) if given.what == "limits" else scaling(rows, given.threads)
    figure.tight_layout()
    figure.savefig(given.picture)


if __name__ == "__main__":
    main()
