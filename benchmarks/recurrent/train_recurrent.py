"""LSTMs and weight-shared transformers beside the standard one (Kaplan et al. 2020, figures 7 and 17).

    python benchmarks/recurrent/train_recurrent.py --corpus .corpus/english --cache STUDY/corpus   # one H200
    python benchmarks/recurrent/train_recurrent.py --dry-run                                # what it would take
    python benchmarks/recurrent/train_recurrent.py --smoke --out smoke.json                 # one CPU core

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.recurrent.plan import GAIN, SMOKE, Settings, alone_seconds, describe, full_plan, smoke_plan  # noqa: E402
from scaling_sim.data.corpus import Corpus, load_corpus, open_corpus  # noqa: E402
from scaling_sim.data.settings import CorpusConfig  # noqa: E402
from scaling_sim.data.shards import MANIFEST  # noqa: E402
from scaling_sim.errors import ConfigError, ScalingSimError  # noqa: E402
from scaling_sim.study.kaplan.corpora import TRAIN, Corpora  # noqa: E402
from scaling_sim.study.kaplan.scales import H200  # noqa: E402
from scaling_sim.study.kaplan.sittings import commit  # noqa: E402

if TYPE_CHECKING:
    import torch

SLOTS = 10
"""Runs on the card at a time."""


def main() -> int:
    began = time.perf_counter()
    arguments = parsed()
    settings = SMOKE if arguments.smoke else Settings()
    if arguments.steps:
        settings = replace(settings, steps=arguments.steps)
    plan = smoke_plan() if arguments.smoke else full_plan()
    if arguments.dry_run:
        print(describe(plan, settings, arguments.seconds))
        return 0
    try:
        with tempfile.TemporaryDirectory() as cache:
            corpus = chosen_corpus(arguments, Path(arguments.cache or cache))
            return measure(plan, settings, corpus, arguments, began)
    except ScalingSimError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="text of benchmarks/corpora, or a built corpus; default: Python's library")
    parser.add_argument("--key", default="english", help="what the corpus is called in the facts (default: english)")
    parser.add_argument("--cache", help="folder of built corpora, such as STUDY/corpus; default: a temporary one")
    parser.add_argument("--out", default="recurrent.json", help="JSON file to write")
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of the whole call; drops the last runs")
    parser.add_argument("--steps", type=int, help="updates of every run; sweep and decay in proportion")
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"runs at a time on a GPU (default: {SLOTS})")
    parser.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    parser.add_argument("--smoke", action="store_true", help="tiny models, few updates: does it work?")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and the expected time, train nothing")
    return parser.parse_args()


def chosen_corpus(arguments: argparse.Namespace, cache: Path) -> Corpus:
    """The study's English text, built into ``cache`` or found there; one that is built; or the standard library."""
    if not arguments.corpus:
        arguments.key = "stdlib"
        return load_corpus(CorpusConfig(), cache)
    folder = Path(arguments.corpus)
    if (folder / MANIFEST).exists() and not (folder / TRAIN).exists():  # a built one; text has a manifest of its own
        return open_corpus(folder)
    corpora = Corpora(H200, folder, cache)
    corpus = corpora.get("english")
    if corpus is None:
        raise ConfigError(corpora.refused["english"])
    return corpus


def measure(plan: list[Any], settings: Settings, corpus: Corpus, arguments: argparse.Namespace, began: float) -> int:
    """Train everything for which there is time and write it."""
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # as many streams that do not wait for one another
    import torch

    from benchmarks.recurrent.side_by_side import Job, SideBySide
    from benchmarks.recurrent.training import DivergedError, train
    from benchmarks.recurrent.trial import Text
    from scaling_sim.datasets.recurrent import RecurrentRun, RecurrentRuns, write_recurrent

    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu":
        torch.set_num_threads(1)
    text = Text(corpus, settings, device, [spec.n_ctx for spec in plan])
    jobs: list[Job[RecurrentRun]] = [
        Job(spec.name, alone_seconds(spec, settings), settings.updates, partial(train, spec, text, settings))
        for spec in plan
    ]
    slots = arguments.slots if device.type == "cuda" else 1
    left = arguments.seconds - (time.perf_counter() - began)
    work = SideBySide[RecurrentRun](slots, GAIN, left, lambda line: print(line, file=sys.stderr, flush=True))
    outcome = work.run(jobs, refused=(DivergedError, RuntimeError))
    facts = known_facts(corpus, settings, arguments.key, device) | {
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_before_training": round(arguments.seconds - left, 1),
        "slots": slots,
        "pace": round((time.perf_counter() - work.began) / work.done, 3) if work.done else None,
    }
    write_recurrent(arguments.out, RecurrentRuns(facts=facts, runs=outcome.results, dropped=outcome.dropped))
    print(f"{len(outcome.results)} runs in {arguments.out} after {facts['seconds']} s, {len(outcome.dropped)} dropped")
    print("\n".join(f"dropped {line}" for line in outcome.dropped), end="\n" if outcome.dropped else "")
    return 0


def known_facts(corpus: Corpus, settings: Settings, key: str, device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    import numpy
    import torch

    import scaling_sim

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    splits = {name: len(tokens) for name, tokens in corpus.splits.items()}
    described = {"key": key, "hash": corpus.hash, "name": corpus.name, "vocab_size": corpus.vocab_size}
    return {
        "corpus": {**described, "tokens": splits["train"], "splits": splits},
        "settings": asdict(settings),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": card,
        "commit": commit(),
        "versions": {
            "scaling_sim": scaling_sim.__version__,
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
