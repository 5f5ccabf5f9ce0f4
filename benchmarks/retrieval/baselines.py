"""Simple baselines of retrieval, scored as ours: ``python -m benchmarks.retrieval.baselines FOLDER``, the folder that ``data.py`` wrote.

Translations: the cosine of character n-grams weighed by TF-IDF, which finds names and numbers. Stamps: canonical correlations between the
colours of small pictures and the n-grams of captions, both reduced to principal components. Nothing is chosen on the test.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from multimodal.heads.retrieval import Embeddings
from multimodal.heads.retrieval_search import rank_pairs

SIDE = 16
COMPONENTS, RIDGE = 64, 0.1


def read(shards: Path, split: str) -> list[dict[str, bytes]]:
    """Return the fields of each sample of a split."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(shards.glob(f"**/{split}*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, field = member.name.partition(".")
                file = tar.extractfile(member)
                samples.setdefault(key, {})[field] = b"" if file is None else file.read()
    return list(samples.values())


def numbers(contents: list[bytes]) -> torch.Tensor:
    """Return a number for each content."""
    known: dict[bytes, int] = {}
    return torch.tensor([known.setdefault(content, len(known)) for content in contents])


def score(name: str, vectors: list[np.ndarray], contents: list[list[bytes]], kinds: tuple[str, str]) -> None:
    """Print the scores of both directions. Vectors are compared by their cosine."""
    sides = [Embeddings.of_items(torch.nn.functional.normalize(torch.from_numpy(x).double(), dim=1).float()) for x in vectors]
    pairs = torch.stack([numbers(content) for content in contents], 1)
    for own in (0, 1):
        ranks = rank_pairs(sides[own], sides[1 - own], pairs if own == 0 else pairs.flip(1))
        said = {key: round(float(value), 3) for key, value in ranks.scores().items()}
        print(json.dumps({"method": name, "direction": f"{kinds[own]}_to_{kinds[1 - own]}", "pairs": len(pairs), **said}), flush=True)


def translations(shards: Path) -> None:
    """Score n-grams on the translations."""
    texts = [[sample[field].decode() for sample in read(shards, split)] for split in ("train", "test") for field in LANGUAGES]
    features = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit(texts[0] + texts[1])
    contents = [[text.encode() for text in side] for side in texts[2:]]
    score("n-grams", [features.transform(side).toarray() for side in texts[2:]], contents, ("english", "german"))


def pixels(data: bytes) -> np.ndarray:
    """Return the colours of a small picture on white."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    small = Image.alpha_composite(white, picture).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel() / 255


def correlations(first: np.ndarray, second: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices that take both kinds of vectors, of mean 0, to their canonical variates; each times its correlation."""
    roots = []
    for x in (first, second):
        covariance = x.T @ x / len(x)
        values, vectors = np.linalg.eigh(covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
        roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
    left, strength, right = np.linalg.svd(roots[0] @ (first.T @ second / len(first)) @ roots[1])
    return roots[0] @ left * strength**0.5, roots[1] @ right.T * strength**0.5


def stamps(shards: Path) -> None:
    """Score canonical correlations on the stamps."""
    samples = {split: read(shards, split) for split in ("train", "test")}
    captions = {split: [sample["txt"].decode() for sample in found] for split, found in samples.items()}
    pictures = {split: np.stack([pixels(sample["png"]) for sample in found]) for split, found in samples.items()}
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2).fit(captions["train"])
    kept = TruncatedSVD(COMPONENTS, random_state=0).fit(grams.transform(captions["train"]))
    shown = PCA(COMPONENTS, random_state=0).fit(pictures["train"])
    both = {split: (shown.transform(pictures[split]), kept.transform(grams.transform(captions[split]))) for split in samples}
    means = [x.mean(0) for x in both["train"]]
    centred = {split: [x - mean for x, mean in zip(found, means, strict=True)] for split, found in both.items()}
    turns = correlations(*centred["train"], RIDGE)
    contents = [[sample[field] for sample in samples["test"]] for field in ("png", "txt")]
    score("canonical correlations", [x @ turn for x, turn in zip(centred["test"], turns, strict=True)], contents, ("image", "text"))


LANGUAGES = ("english.txt", "german.txt")


def main() -> None:
    """Score both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that benchmarks.retrieval.data wrote")
    folder = parser.parse_args().folder
    translations(folder / "translations")
    stamps(folder / "stamps")


if __name__ == "__main__":
    main()
