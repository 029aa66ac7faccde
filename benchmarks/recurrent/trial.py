"""One model in training: all that an update needs lies on the device, so that a CUDA graph can replay it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.recurrent.models import Spec
from benchmarks.recurrent.plan import Settings
from scaling_sim.data.batches import Batches, evaluation_starts
from scaling_sim.data.corpus import Corpus
from scaling_sim.training.evaluation import split_sequences, usable_splits

FIRST_UPDATES = 3
"""Before capture: lazy initialisation of libraries, moments and workspaces."""
REPLAY_TOLERANCE = 0.02
"""Relative; sums by atomics in bfloat16 differ by much less."""
EVALUATED_TOKENS = 131_072
"""In one forward pass."""


class Text:
    """A corpus on the device: the training split whole, of the others the windows that are evaluated."""

    def __init__(self, corpus: Corpus, settings: Settings, device: torch.device, contexts: Iterable[int]) -> None:
        self.corpus, self.settings, self.device = corpus, settings, device
        train = np.array(corpus.splits["train"])
        self.train = torch.from_numpy(train if train.dtype == np.uint8 else train.astype(np.int32)).to(device)
        self.windows = {n_ctx: self._windows(n_ctx) for n_ctx in set(contexts)}
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other streams will read them

    def _windows(self, n_ctx: int) -> dict[str, Tensor]:
        """(n, n_ctx + 1) tokens of every split but ``train``: the library's choice of windows and their shares."""
        splits = usable_splits(self.corpus.splits, n_ctx)
        return {name: self._cut(name, n_ctx) for name in splits if name != "train"}

    def _cut(self, split: str, n_ctx: int) -> Tensor:
        tokens = self.corpus.splits[split]
        num = split_sequences(split, max(1, self.settings.test_tokens // n_ctx))
        starts = evaluation_starts(len(tokens), n_ctx, num)
        return torch.from_numpy(tokens[starts[:, None] + np.arange(n_ctx + 1)].astype(np.int64)).to(self.device)


@dataclass(frozen=True)
class Evaluation:
    """Mean losses of one moment, still on the device."""

    means: dict[str, Tensor]
    positions_T: Tensor
    """Test loss at every position."""
    error: Tensor
    """Standard error of the mean test loss over windows."""


class Trial:
    """A model, its optimizer, and tables of window starts and learning rates.

    On CUDA it has a stream of its own and its updates are captured; if that fails they are launched one by one.
    """

    def __init__(self, spec: Spec, text: Text, settings: Settings) -> None:
        self.spec, self.text, self.settings, self.device = spec, text, settings, text.device
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        with self.on_stream():
            self._prepare()
            self.initial = self._first_state()
            self.graph = self._checked(self._captured()) if self.stream else None
            self.load(self.initial)
        self._last: torch.cuda.Event | None = None

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Queue work on this trial's own stream."""
        with ExitStack() as stack:
            if self.stream is not None:
                stack.enter_context(torch.cuda.stream(self.stream))
            yield

    def _prepare(self) -> None:
        settings, device = self.settings, self.device
        self.model = self.spec.build(self.text.corpus.vocab_size).to(device)
        self.params = list(self.model.parameters())
        self.lr = torch.tensor(0.0, device=device)
        recipe = settings.recipe(1.0, self.spec.seed)
        betas = (recipe.beta1, recipe.beta2)
        self.clip_norm = recipe.clip_norm
        self.optimizer = torch.optim.AdamW(
            self.params, lr=self.lr, betas=betas, weight_decay=0.0, fused=True, capturable=self.stream is not None
        )
        sequences = settings.batch_tokens // self.spec.n_ctx
        batches = Batches(len(self.text.train), self.spec.n_ctx, sequences, self.spec.seed)
        self.starts_KB = torch.from_numpy(batches.starts(0, settings.steps)).to(device)
        self.rates_K = torch.zeros(settings.steps, device=device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self.offsets_W = torch.arange(self.spec.n_ctx + 1, device=device)

    def _first_state(self) -> list[Tensor]:
        """Initial weights and empty moments; makes the first updates, at a learning rate of zero."""
        weights = [weight.detach().clone() for weight in self.params]
        for _ in range(FIRST_UPDATES):
            self.step.zero_()
            self._update()
        return weights + [torch.zeros_like(tensor) for tensor in self._tensors()[len(weights) :]]

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        self.step.zero_()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._update()
        except RuntimeError as error:
            print(f"{self.spec.name}: not captured: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            torch.cuda.synchronize()
            self.optimizer.zero_grad(set_to_none=True)
            return None
        return graph

    def _checked(self, graph: torch.cuda.CUDAGraph | None) -> torch.cuda.CUDAGraph | None:
        """The graph, if two replays find the gradients that two launched updates find."""
        if graph is None:
            return None
        launched, replayed = self._gradients(self._update), self._gradients(graph.replay)
        error = float((replayed - launched).norm() / launched.norm())
        if error < REPLAY_TOLERANCE:
            return graph
        print(f"{self.spec.name}: replays are off by {error:.2g}, launched instead", file=sys.stderr, flush=True)
        return None

    def _gradients(self, update: Callable[[], None]) -> Tensor:
        """Mean gradient of two updates from the initial weights, at a learning rate of zero."""
        self.load(self.initial)
        for _ in range(2):
            update()
        return torch.cat([self.optimizer.state[weight]["exp_avg"].flatten() for weight in self.params])

    def _tensors(self) -> list[Tensor]:
        """All that an update changes."""
        moments = [value for weight in self.params for value in self.optimizer.state[weight].values()]
        return [*(weight.data for weight in self.params), *moments, self.step]

    def state(self) -> list[Tensor]:
        """A copy of weights, moments and the number of updates."""
        with self.on_stream():
            return [tensor.clone() for tensor in self._tensors()]

    def load(self, state: list[Tensor]) -> None:
        """Continue from what `state` returned."""
        with self.on_stream():
            for tensor, value in zip(self._tensors(), state, strict=True):
                tensor.copy_(value)

    def set_rates(self, rates: NDArray[np.float64]) -> None:
        """Learning rate of every update, (steps,)."""
        with self.on_stream():
            self.rates_K.copy_(torch.from_numpy(rates.astype(np.float32)))

    def advance(self, num: int) -> None:
        """Queue ``num`` updates."""
        with self.on_stream():
            for _ in range(num):
                self.graph.replay() if self.graph is not None else self._update()

    def _update(self) -> None:
        self.lr.copy_(self.rates_K.index_select(0, self.step)[0])
        starts_B1 = self.starts_KB.index_select(0, self.step).view(-1, 1)
        self._losses(self.text.train[starts_B1 + self.offsets_W].long()).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.params, self.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _losses(self, window_BW: Tensor) -> Tensor:
        """Cross-entropy of every next token, (B, T) nats."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stream is not None):
            logits_BTV = self.model(window_BW[:, :-1])
        targets_R = window_BW[:, 1:].flatten()
        losses_R = functional.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_R, reduction="none")
        return losses_R.view(len(window_BW), -1)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Losses on the fixed windows of every split."""
        self.model.eval()  # an LSTM then keeps nothing for a backward pass
        with self.on_stream():
            means, rows = {}, max(1, EVALUATED_TOKENS // self.spec.n_ctx)
            for name, windows in self.text.windows[self.spec.n_ctx].items():
                losses_nT = torch.cat([self._losses(part) for part in windows.split(rows)]).double()
                means[name] = losses_nT.mean()
                if name == "test":
                    positions_T = losses_nT.mean(dim=0)
                    error = losses_nT.mean(dim=1).std() / len(losses_nT) ** 0.5
        self.model.train()
        return Evaluation(means, positions_T, error)

    def nearly_done(self) -> Callable[[], bool]:
        """A question: has the device done all that was queued before the last such call? So one part waits in line."""
        before, self._last = self._last, self._event()
        return before.query if before is not None else _true

    def done(self) -> Callable[[], bool]:
        """A question: has the device done all that is queued?"""
        event = self._event()
        return event.query if event is not None else _true

    def _event(self) -> torch.cuda.Event | None:
        if self.stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self.stream)
        return event


def _true() -> bool:
    return True
