"""`python -m bench [name ...]`: runs benchmarks (all but the long ones where none is named) and writes RESULTS.md."""

import argparse
import gc
import importlib

from bench.harness import cpu_name, save, say, write_page

BENCHMARKS = {
    "train": "bench.train:bench",
    "growth": "bench.train:growth",
    "generate": "bench.generate:bench",
    "perplexity": "bench.perplexity:bench",
    "memory": "bench.memory:bench",
    "sweep": "bench.sweep:bench",
    "coverage": "bench.statistics:coverage",
    "cells": "bench.statistics:cells",
    "store": "bench.store:bench",
    "visitors": "bench.visitors:bench",
    "pages": "bench.pages:bench",
    "demo": "bench.sweep:demo",
}
ON_CUDA = ("train", "generate", "perplexity")
LONG = ("demo",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    asked = parser.parse_args().names
    import torch

    on_cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_cuda else cpu_name()
    for name in asked or [n for n in BENCHMARKS if n not in LONG and (n in ON_CUDA or not on_cuda)]:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name}; there are {', '.join(BENCHMARKS)}")
        module, function = BENCHMARKS[name].split(":")
        say(f"{name} on {device}")
        save(getattr(importlib.import_module(module), function)(), device)
        write_page(list(BENCHMARKS))
        gc.collect()
    write_page(list(BENCHMARKS))


if __name__ == "__main__":
    main()
