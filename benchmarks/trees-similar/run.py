"""Recall@1 of a rewritten function among thousands of held-out ones: ours, a bag of node kinds, token TF-IDF.

python benchmarks/trees-similar/run.py --wheels runs/wheels --out benchmarks/trees-similar/result.json
"""

from __future__ import annotations

import argparse
import collections
import io
import itertools
import json
import keyword
import time
import tokenize
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.preprocessing import normalize

from outsize.programs.trees.corpus import Pin, read_pins, read_texts, without_copies
from outsize.programs.trees.dedup import normalised_keys
from outsize.programs.trees.functions import Functions
from outsize.programs.trees.similar import (
    Matcher,
    MatcherConfig,
    embed,
    packed_pairs,
    pairs,
    recall_at_1,
    save_matcher,
    train_matcher,
)


def texts(pins: list[Pin], wheels: Path, split: str) -> list[bytes]:
    """Modules of the wheels of one split (the installed packages are left out: torch alone is slow to read)."""
    chosen = [pin for pin in pins if pin.split == split and pin.source == "wheel"]
    return [text for pin in chosen for _, text in read_texts(pin, wheels)]


def bag_of_kinds(functions: Functions) -> np.ndarray:
    """Counts of (kind, operator or small number), TF-IDF weighted together with the gallery by the caller."""
    width = len(functions.forest.kinds)
    key = functions.forest.tree_of * width + functions.forest.kind
    return (
        np.bincount(key, minlength=functions.count * width).reshape(functions.count, width).astype(np.float64)
    )


def stripped(text: str) -> str:
    """Tokens with identifiers replaced by `id`, as one string for the vectorizer."""
    out = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            out.append(token.string if keyword.iskeyword(token.string) else "id")
        elif token.type in (tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            out.append(token.string.replace(" ", "_"))
    return " ".join(out)


def compare(
    models: dict[str, Matcher], gallery: Functions, code: list[str], rows: np.ndarray, queries: Functions,
    query_code: list[str],
) -> dict[str, float]:  # fmt: skip
    kinds = TfidfTransformer().fit(bag_of_kinds(gallery))
    tokens = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 3), sublinear_tf=True)
    gram = tokens.fit_transform(map(stripped, code))
    asked = tokens.transform(map(stripped, query_code))
    result = {
        "bag of node kinds": recall_at_1(
            normalize(bag_of_kinds(queries)), normalize(bag_of_kinds(gallery)), rows
        ),
        "bag of node kinds, TF-IDF": recall_at_1(
            kinds.transform(bag_of_kinds(queries)).toarray(),
            kinds.transform(bag_of_kinds(gallery)).toarray(),
            rows,
        ),
    }
    score = asked @ gram.T
    best = 0
    for start in range(0, len(rows), 256):
        part = score[start : start + 256].toarray()
        want = rows[start : start + 256]
        own = part[np.arange(len(want)), want].copy()
        part[np.arange(len(want)), want] = -1
        best += int((own > part.max(1)).sum())
    result["token 1-3-grams, TF-IDF, identifiers stripped"] = best / len(rows)
    for name, model in models.items():
        result[name] = recall_at_1(embed(model, queries), embed(model, gallery), rows)
    return {name: round(value, 4) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, default=Path("runs/wheels"))
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--most", type=int, help="rewrites applied to one function, at most; else wherever they hold"
    )
    parser.add_argument("--nodes", type=int, default=10, help="smallest function that is taken")
    parser.add_argument(
        "--strong", type=int, default=4, help="rewrites from which a query counts as strongly rewritten"
    )
    parser.add_argument("--gallery", type=int, default=5_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--stripped", action="store_true", help="train a second matcher that reads no names")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pins = read_pins()
    rng = np.random.default_rng(0)
    training = texts(pins, args.wheels, "train")
    size = (args.nodes, 512)
    drawn = pairs((training[i] for i in rng.permutation(len(training))), 0, most=args.most, nodes=size)
    found = list(itertools.islice(drawn, args.pairs))
    left, right = packed_pairs(found)
    print(
        "pairs", left.count, dict(collections.Counter(n for _, _, names in found for n in names)), flush=True
    )
    models, seconds = {}, {}
    kinds = {"matcher": MatcherConfig()}
    if args.stripped:
        kinds["matcher, identifiers stripped"] = MatcherConfig(names=False)
    for name, config in kinds.items():
        torch.manual_seed(0)
        started = time.process_time()
        models[name] = train_matcher(
            Matcher(config), left, right, steps=args.steps,
            said=lambda s, v: print(s, round(v, 3), flush=True) if s % 25 == 0 else None,
        )  # fmt: skip
        seconds[name] = round(time.process_time() - started, 1)
    if args.model:
        history = {"pairs": left.count, "steps": args.steps, "seconds": seconds["matcher"]}
        save_matcher(models["matcher"], args.model, history)
    held = texts(pins, args.wheels, "test") + texts(pins, args.wheels, "valid")
    # Functions that no rewrite applies to stay in the gallery: a query must be told apart from them as well.
    drawn = pairs((held[i] for i in rng.permutation(len(held))), 1, most=args.most, every=True, nodes=size)
    test = list(itertools.islice(drawn, args.gallery * 23 // 20))
    original, changed = packed_pairs(test)
    assert original.count == len(test)
    kept, _ = without_copies(original)
    kept = kept[~np.isin(normalised_keys(original.select(kept)), normalised_keys(left))][: args.gallery]
    result = {
        "training_pairs": left.count, "steps": args.steps, "rewrites_at_most": args.most or "all that hold",
        "processor_seconds": seconds, "gallery": len(kept),
    }  # fmt: skip
    for name, least in (("recall_at_1", 1), ("recall_at_1_strongly_rewritten", args.strong)):
        rows = np.array([row for row, i in enumerate(kept.tolist()) if len(test[i][2]) >= least])[
            : args.queries
        ]
        queries = kept[rows].tolist()
        result |= {
            name: compare(models, original.select(kept), [test[i][0] for i in kept.tolist()], rows,
                          changed.select(queries), [test[i][1] for i in queries]),
            f"{name}_queries": {
                "queries": len(queries), "rewrites": dict(collections.Counter(n for i in queries for n in test[i][2]))
            },
        }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
