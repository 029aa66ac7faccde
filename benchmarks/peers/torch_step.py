"""What a user would run instead: one training step in plain PyTorch on the CPU, eager or compiled.

A process that is asked through its standard input. First line printed: a JSON object that says what runs here. Then,
for each line with a number k, it does k steps and prints {"wall": seconds, "cpu": seconds, "losses": [...]}.

    python torch_step.py CASE.npz --mode eager --threads 1

CASE.npz holds the sizes, the initial weights by their canonical names, the windows of every step and the recipe, so
that the other side of the comparison can start from the same point. Nothing of scaling_sim is imported here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

LAYER_NAMES = ("ln1_gain", "ln1_bias", "qkv", "attn_out", "ln2_gain", "ln2_bias", "mlp_up", "mlp_down")
DECAYED = ("qkv", "attn_out", "mlp_up", "mlp_down")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    step = stepper(np.load(arguments.case), arguments.mode)
    print(json.dumps({"what": f"torch {torch.__version__} {arguments.mode}"}), flush=True)
    done = 0
    for line in sys.stdin:
        losses = []
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            losses.append(step(done))
            done += 1
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(answer | {"losses": [float(loss) for loss in losses]}), flush=True)


def stepper(case: np.lib.npyio.NpzFile, mode: str) -> Callable[[int], object]:
    """A function of the step's number that trains one step and returns the loss before it, without waiting for it."""
    import torch

    weights = parameters(case)
    layers, heads, clip_norm = int(case["n_layer"]), int(case["n_head"]), float(case["clip_norm"])

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return model_loss(weights, layers, heads, inputs, targets)

    run = torch.compile(loss_of, dynamic=False, fullgraph=True) if mode == "compile" else loss_of
    decayed = [value for name, value in weights.items() if name.split(".")[0] in DECAYED]
    plain = [value for name, value in weights.items() if name.split(".")[0] not in DECAYED]
    groups = [{"params": decayed, "weight_decay": float(case["weight_decay"])}, {"params": plain, "weight_decay": 0.0}]
    betas = (float(case["beta1"]), float(case["beta2"]))
    optimiser = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=float(case["lr"]), betas=betas, eps=1e-8, fused=True
    )
    windows = torch.from_numpy(case["windows"].astype(np.int64))  # (steps, B, T + 1)

    def step(number: int) -> torch.Tensor:
        batch = windows[number % len(windows)]
        loss = run(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def parameters(case: np.lib.npyio.NpzFile) -> dict[str, object]:
    """One tensor per matrix, as a module would hold them; stacked layers are taken apart ("qkv.0")."""
    import torch

    def parameter(value: np.ndarray) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.from_numpy(value.astype(np.float32)))

    names = ("token_embedding", "position_embedding", "ln_f_gain", "ln_f_bias")
    weights = {name: parameter(case[name]) for name in names}
    for name in LAYER_NAMES:
        weights |= {f"{name}.{layer}": parameter(value) for layer, value in enumerate(case[name])}
    return weights


def model_loss(weights: dict[str, object], layers: int, heads: int, inputs: object, targets: object) -> object:
    """Mean cross-entropy of a GPT-2 block stack without linear biases, head tied to the token embedding."""
    import torch.nn.functional as F

    x = F.embedding(inputs, weights["token_embedding"]) + weights["position_embedding"]
    B, T, d = x.shape
    for l in range(layers):
        normed = F.layer_norm(x, (d,), weights[f"ln1_gain.{l}"], weights[f"ln1_bias.{l}"])
        qkv = F.linear(normed, weights[f"qkv.{l}"]).view(B, T, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + F.linear(attended.transpose(1, 2).reshape(B, T, d), weights[f"attn_out.{l}"])
        normed = F.layer_norm(x, (d,), weights[f"ln2_gain.{l}"], weights[f"ln2_bias.{l}"])
        hidden = F.gelu(F.linear(normed, weights[f"mlp_up.{l}"]), approximate="tanh")
        x = x + F.linear(hidden, weights[f"mlp_down.{l}"])
    x = F.layer_norm(x, (d,), weights["ln_f_gain"], weights["ln_f_bias"])
    logits = F.linear(x, weights["token_embedding"])
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


if __name__ == "__main__":
    main()
