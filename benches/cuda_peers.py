#!/usr/bin/env python3
"""Lazuli beside PyTorch, eager and compiled, and JAX on one GPU, in one run.

    python benches/cuda_peers.py [--seconds 0.5] [--rounds 3] [--only NAME,..] [--peers torch,inductor,graphs,jax] [--tf32]

Prints one JSON line a workload, then a table in Markdown. Engines take turns, workload by workload, so that drift of clocks falls on all;
numbers are medians over rounds. `torch` is PyTorch's eager mode with its own fused operations (`layer_norm`,
`scaled_dot_product_attention`), `inductor` is torch.compile, `graphs` the same with CUDA graphs (`reduce-overhead`), which Lazuli has always;
`jax` is jit. All multiply f32 in full, or with --tf32 all in TF32.

`median_s` is a run and a wait for the device, `queued_s` a run of 20 in a row with one wait at the end. A ratio is the best peer's
`queued_s` by Lazuli's: above 1, Lazuli is faster. Exit status: 1 where a checksum differs, 2 where there is no GPU, 3 where an
engine fails.

With --device cpu the same runs on the CPU: a trial of the script itself, for small workloads and --rounds 1.
Needs: pip install torch jax[cuda13] numpy; a CUDA build of each.
"""
import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time

import numpy as np

IN_A_ROW = 20
LEARNING_RATE = 0.01
NAMES = """gelu_residual_4m gelu_residual_64k softmax_4096x1024 layernorm_4096x1024 sum_rows_4096x4096 sum_cols_4096x4096
transpose_add_2048 mlp_forward_b64 mlp_train_b64 attention_b4h8s256d64 transformer_block_forward transformer_block_train
cnn_forward_b32 cnn_train_b32 gemm_gelu_bf16_4096 attention_b8h16s2048d64 transformer_block_train_d1024""".split()


def fill(seed, *shape, scale=1.0, shift=0.0):
    """Numbers in [-0.5, 0.5) * scale + shift, as `benches/workloads` makes them: the top 24 bits of splitmix64 at each position."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return ((u - np.float32(0.5)) * np.float32(scale) + np.float32(shift)).reshape(shape)


def labels(seed, n, classes):
    return ((fill(seed, n) + 0.5) * classes).astype(np.int64).clip(0, classes - 1)


class Half:
    """An array that engines hold as bf16."""

    def __init__(self, array):
        self.array = array


def mlp_parameters():
    scales = [(20, (784, 512), 0.07), (21, (512,), 0.01), (22, (512, 512), 0.08), (23, (512,), 0.01), (24, (512, 10), 0.08)]
    return [fill(seed, *shape, scale=scale) for seed, shape, scale in scales + [(25, (10,), 0.01)]]


def block_parameters(d, f):
    weights = {52: (d, 3 * d), 54: (d, d), 58: (d, f), 60: (f, d)}
    vectors = {50: d, 51: d, 53: 3 * d, 55: d, 56: d, 57: d, 59: f, 61: d}
    make = lambda s: fill(s, *weights[s], scale=0.1) if s in weights else fill(s, vectors[s], shift=float(s in (50, 56)))
    return [make(seed) for seed in range(50, 62)]


def cnn_parameters():
    return [fill(70, 32, 1, 3, 3, scale=0.6), fill(71, 32), fill(72, 64, 32, 3, 3, scale=0.12), fill(73, 64),
            fill(74, 64 * 49, 10, scale=0.03), fill(75, 10)]


def mlp(m, x, p):
    h = m.relu(x @ p[0] + p[1])
    return m.relu(h @ p[2] + p[3]) @ p[4] + p[5]


def block(m, x, p, heads):
    b, s, d = x.shape
    qkv = m.layer_norm(x, p[0], p[1]) @ p[2] + p[3]
    part = lambda i: m.permute(qkv[:, :, i * d:(i + 1) * d].reshape(b, s, heads, d // heads), (0, 2, 1, 3))
    o = m.permute(m.attention(part(0), part(1), part(2)), (0, 2, 1, 3)).reshape(b, s, d)
    x = x + o @ p[4] + p[5]
    return x + m.gelu(m.layer_norm(x, p[6], p[7]) @ p[8] + p[9]) @ p[10] + p[11]


def block_loss(m, x, p, heads):
    y = block(m, x, p, heads)
    return (y * y).mean()


def cnn(m, x, p):
    h = m.max_pool(m.relu(m.conv(x, p[0]) + p[1].reshape(1, -1, 1, 1)))
    h = m.max_pool(m.relu(m.conv(h, p[2]) + p[3].reshape(1, -1, 1, 1)))
    return h.reshape(x.shape[0], -1) @ p[4] + p[5]


def workload(name):
    """The data, the parameters, and a function of an engine's words, the data and the parameters."""
    if name.startswith("gelu_residual"):
        rows = 4096 if name.endswith("4m") else 64
        data = [fill(1, rows, 1024, scale=4), fill(2, 1024), fill(3, rows, 1024)]
        return data, [], lambda m, d, p: m.gelu(d[0] + d[1]) + d[2]
    if name == "softmax_4096x1024":
        return [fill(4, 4096, 1024, scale=8)], [], lambda m, d, p: m.softmax(d[0])
    if name == "layernorm_4096x1024":
        data = [fill(5, 4096, 1024, scale=3), fill(6, 1024, shift=1), fill(7, 1024)]
        return data, [], lambda m, d, p: m.layer_norm(*d)
    if name == "sum_rows_4096x4096":
        return [fill(8, 4096, 4096)], [], lambda m, d, p: m.sum(d[0], -1)
    if name == "sum_cols_4096x4096":
        return [fill(8, 4096, 4096)], [], lambda m, d, p: m.sum(d[0], 0)
    if name == "transpose_add_2048":
        return [fill(9, 2048, 2048), fill(10, 2048, 2048)], [], lambda m, d, p: d[0].T + d[1]
    if name == "mlp_forward_b64":
        return [fill(30, 64, 784)], mlp_parameters(), lambda m, d, p: mlp(m, d[0], p)
    if name == "mlp_train_b64":
        data = [fill(30, 64, 784), labels(31, 64, 10)]
        return data, mlp_parameters(), lambda m, d, p: m.cross_entropy(mlp(m, d[0], p), d[1])
    if name == "transformer_block_forward":
        return [fill(62, 4, 128, 256)], block_parameters(256, 1024), lambda m, d, p: block(m, d[0], p, 8)
    if name == "transformer_block_train":
        return [fill(62, 4, 128, 256)], block_parameters(256, 1024), lambda m, d, p: block_loss(m, d[0], p, 8)
    if name == "cnn_forward_b32":
        return [fill(76, 32, 1, 28, 28)], cnn_parameters(), lambda m, d, p: cnn(m, d[0], p)
    if name == "cnn_train_b32":
        data = [fill(76, 32, 1, 28, 28), labels(77, 32, 10)]
        return data, cnn_parameters(), lambda m, d, p: m.cross_entropy(cnn(m, d[0], p), d[1])
    if found := re.fullmatch(r"attention_b(\d+)h(\d+)s(\d+)d(\d+)", name):
        shape = [int(n) for n in found.groups()]
        return [fill(seed, *shape, scale=2) for seed in (40, 41, 42)], [], lambda m, d, p: m.attention(*d)
    if found := re.fullmatch(r"gemm_gelu_bf16_(\d+)", name):
        n = int(found[1])
        return [Half(fill(90, n, n)), Half(fill(91, n, n, scale=0.1))], [], lambda m, d, p: m.gelu(d[0] @ d[1])
    if found := re.fullmatch(r"transformer_block_train_d(\d+)", name):
        d = int(found[1])
        return [fill(62, 8, 512, d)], block_parameters(d, 4 * d), lambda m, x, p: block_loss(m, x[0], p, 16)
    raise ValueError(f"no workload {name}; there are {', '.join(NAMES)}, and those of other sizes")


class Torch:
    """PyTorch: eager, or compiled in a mode."""

    def __init__(self, device, tf32, mode):
        import torch
        self.torch, self.device, self.mode, self.f = torch, torch.device(device), mode, torch.nn.functional
        self.relu = torch.relu
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def attention(self, q, k, v): return self.f.scaled_dot_product_attention(q, k, v)
    def conv(self, x, w): return self.f.conv2d(x, w, padding=1)
    def cross_entropy(self, x, y): return self.f.cross_entropy(x, y)
    def gelu(self, x): return self.f.gelu(x, approximate="tanh")
    def layer_norm(self, x, w, b): return self.f.layer_norm(x, w.shape, w, b)
    def max_pool(self, x): return self.f.max_pool2d(x, 2)
    def permute(self, x, order): return x.permute(order)
    def softmax(self, x): return x.softmax(-1)
    def sum(self, x, dim): return x.sum(dim, keepdim=True)

    def wait(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def array(self, a):
        if isinstance(a, Half):
            return self.torch.from_numpy(a.array).to(self.device, self.torch.bfloat16)
        return self.torch.from_numpy(a).to(self.device)

    def numbers(self, y):
        return y.detach().double().cpu().numpy()

    def runner(self, data, parameters, function, trains):
        torch = self.torch
        torch._dynamo.reset()
        data, parameters = [self.array(a) for a in data], [self.array(a).requires_grad_(trains) for a in parameters]
        body = lambda data, parameters: function(self, data, parameters)
        compiled = torch.compile(body, mode=self.mode) if self.mode else body

        def forward():
            if self.mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            with torch.no_grad():
                return compiled(data, parameters)

        def step():
            if self.mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            for p in parameters:
                p.grad = None
            loss = compiled(data, parameters)
            loss.backward()
            with torch.no_grad():
                torch._foreach_add_(parameters, [p.grad for p in parameters], alpha=-LEARNING_RATE)
            return loss
        return step if trains else forward

    def forget(self):
        if self.device.type == "cuda":
            self.torch.cuda.empty_cache()


class Jax:
    """JAX, by jit."""

    def __init__(self, device, tf32):
        import jax
        import jax.numpy as jnp
        self.jax, self.jnp, self.device = jax, jnp, jax.devices("gpu" if device == "cuda" else "cpu")[0]
        self.last = None
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")

    def attention(self, q, k, v):
        weights = self.softmax((q @ self.jnp.swapaxes(k, -1, -2)) * q.shape[-1] ** -0.5)
        return weights @ v

    def conv(self, x, w):
        return self.jax.lax.conv_general_dilated(x, w, (1, 1), [(1, 1)] * 2, dimension_numbers=("NCHW", "OIHW", "NCHW"))

    def cross_entropy(self, x, y):
        logs = self.jax.nn.log_softmax(x)
        return -self.jnp.take_along_axis(logs, y[:, None], 1).mean()

    def gelu(self, x): return self.jax.nn.gelu(x, approximate=True)

    def layer_norm(self, x, w, b):
        d = x - x.mean(-1, keepdims=True)
        return d * self.jax.lax.rsqrt((d * d).mean(-1, keepdims=True) + 1e-5) * w + b

    def max_pool(self, x):
        return self.jax.lax.reduce_window(x, -self.jnp.inf, self.jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def permute(self, x, order): return self.jnp.transpose(x, order)
    def relu(self, x): return self.jax.nn.relu(x)
    def softmax(self, x): return self.jax.nn.softmax(x, -1)
    def sum(self, x, dim): return x.sum(dim, keepdims=True)

    def wait(self):
        self.jax.block_until_ready(self.last)

    def array(self, a):
        if isinstance(a, Half):
            return self.jax.device_put(a.array, self.device).astype(self.jnp.bfloat16)
        return self.jax.device_put(a.astype(np.int32) if a.dtype == np.int64 else a, self.device)

    def numbers(self, y):
        return np.asarray(y.astype(self.jnp.float32)).astype(np.float64)

    def runner(self, data, parameters, function, trains):
        data, state = [self.array(a) for a in data], [[self.array(a) for a in parameters]]
        loss = lambda p, d: function(self, d, p)
        if not trains:
            forward = self.jax.jit(loss)

            def run():
                self.last = forward(state[0], data)
                return self.last
            return run

        def update(p, d):
            value, gradients = self.jax.value_and_grad(loss)(p, d)
            return value, [a - LEARNING_RATE * g for a, g in zip(p, gradients)]
        update = self.jax.jit(update, donate_argnums=0)

        def step():
            value, state[0] = self.last = update(state[0], data)
            return value
        return step

    def forget(self):
        self.last = None
        self.jax.clear_caches()


ENGINES = {
    "torch": lambda device, tf32: Torch(device, tf32, None),
    "inductor": lambda device, tf32: Torch(device, tf32, "default"),
    "graphs": lambda device, tf32: Torch(device, tf32, "reduce-overhead"),
    "jax": Jax,
}


def measure(engine, name, seconds):
    data, parameters, function = workload(name)
    run = engine.runner(data, parameters, function, "_train" in name)

    def waited():
        start = time.perf_counter()
        y = run()
        engine.wait()
        return time.perf_counter() - start, y
    first, y = waited()
    checksum = float(np.abs(engine.numbers(y)).mean())
    for _ in range(3):
        waited()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        times.append(waited()[0])
    start = time.perf_counter()
    for _ in range(IN_A_ROW):
        run()
    engine.wait()
    queued = (time.perf_counter() - start) / IN_A_ROW
    median = statistics.median(times)
    return dict(median_s=median, min_s=min(times), queued_s=queued, runs=len(times), compile_s=max(0.0, first - median),
                checksum=checksum)


def work(name, device, tf32):
    """A peer's process: reads `workload seconds` a line, and answers with a line."""
    os.environ.update(XLA_PYTHON_CLIENT_PREALLOCATE="false", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")
    engine = ENGINES[name](device, tf32)
    for line in sys.stdin:
        wanted, seconds = line.split()
        try:
            answer = measure(engine, wanted, float(seconds))
        except Exception as error:  # One workload that a peer cannot run is no reason to lose the others.
            answer = dict(error=f"{type(error).__name__}: {error}"[:300])
        engine.forget()
        print("RESULT " + json.dumps(answer), flush=True)


class Peer:
    """The process of a peer, which stays for all workloads."""

    def __init__(self, name, options):
        command = [sys.executable, os.path.abspath(__file__), "--worker", name, "--device", options.device]
        command += ["--tf32"] if options.tf32 else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, name, seconds):
        try:
            self.process.stdin.write(f"{name} {seconds}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return dict(error="its process ended")
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                return json.loads(line[len("RESULT "):])
        return dict(error=f"its process ended with status {self.process.wait()}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def lazuli(name, options):
    command = shlex.split(options.lazuli) + ["--device", options.device, "--seconds", str(options.seconds), "--only", name]
    command += ["--engines", "lazuli", "--tf32", "true" if options.tf32 else "false"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not rows:
        return dict(error=(done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:300])
    return rows[0]


def merged(rows):
    """Medians over rounds; what failed in one has failed."""
    failed = next((r for r in rows if "error" in r), None)
    if failed:
        return failed
    return {key: statistics.median(r[key] for r in rows) for key in ("median_s", "queued_s", "compile_s", "checksum")}


def summary(name, engines, device):
    """A workload's line: all engines, the ratio, and whose checksum is off."""
    peers = {e: r for e, r in engines.items() if e != "lazuli" and "error" not in r}
    line = dict(workload=name, device=device, engines=engines, ratio=None, best=None, checksum_differs=[])
    if peers and "error" not in engines["lazuli"]:
        line["best"] = min(peers, key=lambda e: peers[e]["queued_s"])
        line["ratio"] = peers[line["best"]]["queued_s"] / engines["lazuli"]["queued_s"]
        expected = statistics.median(r["checksum"] for r in peers.values())
        tolerance = (1e-2 if "bf16" in name else 1e-3) * abs(expected)
        fits = lambda r: abs(r["checksum"] - expected) <= tolerance
        line["checksum_differs"] = [e for e, r in engines.items() if "error" not in r and not fits(r)]
    return line


def table(lines, peers):
    """The lines as Markdown."""
    head = ["workload", "lazuli, ms", *(f"{p}, ms" for p in peers), "best peer / lazuli", "lazuli, a call and a wait, ms", "compiles faster by"]
    rows = [head, ["---"] * len(head)]
    ms = lambda r, key="queued_s": f"{r[key] * 1e3:.3f}" if "error" not in r else "-"
    for line in lines:
        e = line["engines"]
        compiled = e.get("inductor", {}).get("compile_s")
        faster = "-" if compiled is None or "error" in e["lazuli"] else f"{compiled / max(e['lazuli']['compile_s'], 1e-6):.0f}"
        ratio = "-" if line["ratio"] is None else f"{line['ratio']:.2f} {line['best']}"
        rows.append([line["workload"], ms(e["lazuli"]), *(ms(e[p]) for p in peers), ratio, ms(e["lazuli"], "median_s"), faster])
    ratios = [line["ratio"] for line in lines if line["ratio"]]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        text += f"\n\ngeometric mean of the ratios {mean:.3f}; {sum(r < 1 for r in ratios)} of {len(ratios)} below 1"
    return text


def gpu():
    """The GPU's name; ends where there is none."""
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip().splitlines()[0]
        reason = (found.stdout + found.stderr).strip() or "nvidia-smi shows none"
    except OSError as error:
        reason = f"nvidia-smi does not run: {error}"
    print(f"no GPU: {reason}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--lazuli", default="cargo bench -q --bench peers --", help="the command of Lazuli's side")
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--peers", default="torch,inductor,graphs,jax")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.device, options.tf32)
        return
    names, engines = options.only.split(","), [p for p in options.peers.split(",") if p]
    if unknown := [p for p in engines if p not in ENGINES]:
        raise SystemExit(f"no peer {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    device = gpu() if options.device == "cuda" else "cpu"
    peers = {name: Peer(name, options) for name in engines}
    lines = []
    for name in names:
        rounds = {engine: [] for engine in ["lazuli", *engines]}
        for _ in range(options.rounds):
            rounds["lazuli"].append(lazuli(name, options))
            for engine, peer in peers.items():
                rounds[engine].append(peer.measure(name, options.seconds))
        lines.append(summary(name, {engine: merged(rows) for engine, rows in rounds.items()}, device))
        print(json.dumps(lines[-1]), flush=True)
    for peer in peers.values():
        peer.close()
    print(f"\n{device}, {'TF32' if options.tf32 else 'full f32'}, {options.rounds} rounds\n\n{table(lines, engines)}")
    if any("error" in r for line in lines for r in line["engines"].values()):
        raise SystemExit(3)
    if any(line["checksum_differs"] for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
