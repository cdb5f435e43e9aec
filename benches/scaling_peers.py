#!/usr/bin/env python3
"""Time against size for the kernels of the `scaling` bench, on PyTorch and JAX: one JSON line for each.

    python benches/scaling_peers.py [--threads 2] [--seconds 0.1] [--engines aten,inductor,jax] [--only NAME,..] [--least 1024] [--most 268435456]

A line holds what `cargo bench -q --bench scaling` prints, and `engine`. Needs: pip install torch jax numpy (and a C++ compiler for
torch.compile).
"""
import argparse
import json
import os
import statistics
import time

# Products of larger matrices take seconds, and tell nothing new.
MOST_PRODUCT = 16 << 20


def rows(n):
    columns = min(max(n, 1), 1024, max(1 << max(n // 8 - 1, 0).bit_length(), 16))
    return max(n // columns, 1), columns


def square(n):
    side = max(int(n**0.5), 1)
    return side, side


# The shapes of the inputs, for about so many elements read and written, and the function in PyTorch and in JAX.
KERNELS = {
    "scale_add": (lambda n: [rows(n // 2)], lambda t, a: a * 1.5 + 0.5, lambda j, a: a * 1.5 + 0.5),
    "gelu": (
        lambda n: [rows(n // 2)],
        lambda t, a: t.nn.functional.gelu(a, approximate="tanh"),
        lambda j, a: j.nn.gelu(a, approximate=True),
    ),
    "softmax_rows": (lambda n: [rows(n // 2)], lambda t, a: t.softmax(a, -1), lambda j, a: j.nn.softmax(a, -1)),
    "softmax_columns": (lambda n: [rows(n // 2)], lambda t, a: t.softmax(a, 0), lambda j, a: j.nn.softmax(a, 0)),
    "sum_rows": (lambda n: [rows(n)], lambda t, a: a.sum(-1, keepdim=True), lambda j, a: a.sum(-1, keepdims=True)),
    "sum_columns": (lambda n: [rows(n)], lambda t, a: a.sum(0, keepdim=True), lambda j, a: a.sum(0, keepdims=True)),
    "transpose_add": (lambda n: [square(n // 3)] * 2, lambda t, a, b: a.t() + b, lambda j, a, b: a.T + b),
    "matmul": (lambda n: [square(n // 3)] * 2, lambda t, a, b: a @ b, lambda j, a, b: a @ b),
}


def measure(run, seconds):
    for _ in range(3):
        run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def runner(engine, name, arrays):
    """A call of no arguments that runs the kernel to its end."""
    _, torch_function, jax_function = KERNELS[name]
    if engine == "jax":
        import jax

        inputs = [jax.numpy.asarray(a) for a in arrays]
        program = jax.jit(lambda *x: jax_function(jax, *x))
        return lambda: program(*inputs).block_until_ready()
    import torch

    inputs = [torch.from_numpy(a) for a in arrays]
    program = lambda *x: torch_function(torch, *x)
    if engine == "inductor":
        torch._dynamo.reset()
        program = torch.compile(program, dynamic=False)

    def run():
        with torch.no_grad():
            return program(*inputs)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--engines", default="aten,inductor,jax")
    parser.add_argument("--only", default=",".join(KERNELS))
    parser.add_argument("--least", type=int, default=1 << 10)
    parser.add_argument("--most", type=int, default=256 << 20)
    given = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, processors)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import numpy as np
    import torch

    torch.set_num_threads(given.threads)
    for name in given.only.split(","):
        shapes_of = KERNELS[name][0]
        most = min(given.most, MOST_PRODUCT) if name == "matmul" else given.most
        size = given.least
        while size <= most:
            shapes = shapes_of(size // 4)
            arrays = [np.random.rand(*shape).astype(np.float32) for shape in shapes]
            for engine in given.engines.split(","):
                run = runner(engine, name, arrays)
                result = run()
                moved = 4 * (sum(m * n for m, n in shapes) + int(np.prod(result.shape)))
                times = measure(run, given.seconds)
                median = statistics.median(times)
                line = {"kernel": name, "engine": engine, "bytes": moved, "threads": given.threads}
                line |= {"median_s": median, "min_s": min(times), "gb_s": moved / median / 1e9}
                print(json.dumps(line), flush=True)
            size *= 4


if __name__ == "__main__":
    main()
