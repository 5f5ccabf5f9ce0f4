"""Topics of short texts: makes the files that the recipe ``configs/finetune/text.yaml`` is tried on, and scores a simple baseline.

    python benchmarks/topics.py files /usr/share/games/fortunes data/topics      # a folder of files from Debian's package `fortunes`
    multimodal shards write data/topics --to data/topics_shards --split train=0.8,val=0.2 --deduplicate
    python benchmarks/topics.py baseline data/topics_shards

The files of the package are lists of quotations, one file for each topic. Eighteen topics that are topics are taken, at most 300 quotations
of each; a quotation in several files is left out.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections import Counter
from pathlib import Path

TOPICS = (
    "art",
    "computers",
    "definitions",
    "drugs",
    "education",
    "food",
    "kids",
    "law",
    "linux",
    "love",
    "perl",
    "politics",
    "science",
    "songs-poems",
    "sports",
    "startrek",
    "work",
    "zippy",
)
MOST, SHORTEST = 300, 20


def quotations(path: Path) -> list[str]:
    """Return the quotations of a file, which lines with a percent sign part."""
    parts = path.read_text(encoding="utf-8", errors="replace").split("\n%\n")
    return [text for part in parts if len(text := " ".join(part.split())) >= SHORTEST]


def write_files(source: Path, target: Path) -> None:
    """Write one file for each quotation, in a folder for each topic."""
    found = {topic: quotations(source / topic) for topic in TOPICS}
    times = Counter(text for texts in found.values() for text in set(texts))
    for topic, texts in found.items():
        folder = target / topic
        folder.mkdir(parents=True, exist_ok=True)
        kept = [text for text in dict.fromkeys(texts) if times[text] == 1]
        for number in range(0, len(kept), max(1, -(-len(kept) // MOST))):  # from all over the file
            (folder / f"{number:04}.txt").write_text(kept[number], encoding="utf-8")
        print(f"{topic:12} {len(list(folder.glob('*.txt'))):4}")


def read_split(shards: Path, split: str) -> tuple[list[str], list[int]]:
    """Return texts and labels."""
    texts, labels = [], []
    for path in sorted(shards.glob(f"**/{split}*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                content = b"" if file is None else file.read()
                if member.name.endswith(".txt"):
                    texts.append(content.decode())
                elif member.name.endswith(".json"):
                    labels.append(json.loads(content)["label"])
    return texts, labels


def score_baseline(shards: Path) -> None:
    """Print the share of the most frequent topic, and the accuracy of a logistic regression on character n-grams and words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    (texts, labels), (new, truth) = read_split(shards, "train"), read_split(shards, "val")
    (frequent, _), *_ = Counter(labels).most_common(1)
    print(f"{len(texts)} to train on, {len(new)} to score, {len(set(labels))} topics")
    print(f"most frequent topic     accuracy {sum(label == frequent for label in truth) / len(truth):.3f}")
    for name, analyzer, spans in (("words", "word", (1, 1)), ("character n-grams", "char_wb", (2, 5))):
        features = TfidfVectorizer(analyzer=analyzer, ngram_range=spans, sublinear_tf=True, min_df=2)
        model = LogisticRegression(C=30, max_iter=1000).fit(features.fit_transform(texts), labels)
        guesses = model.predict(features.transform(new))
        accuracy = sum(guess == label for guess, label in zip(guesses, truth, strict=True)) / len(truth)
        print(f"{name:23} accuracy {accuracy:.3f}  macro F1 {f1_score(truth, guesses, average='macro'):.3f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["files", source, target]:
            write_files(Path(source), Path(target))
        case ["baseline", shards]:
            score_baseline(Path(shards))
        case _:
            sys.exit(__doc__)
