"""The command ``multimodal``. Everything heavy is imported when its command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from multimodal import __version__
from multimodal.config_errors import ConfigError, shorten

HELP = f"""usage: multimodal COMMAND ...

Masked modeling of any modality (version {__version__}).

data:
  shards write      pack files, a table, a saved data set or tars into tar shards with an index
  shards tokenize   store the ids of a frozen tokenizer beside the data
  shards inspect    show what shards hold
  shards verify     check shards against their index
  shards stats      measure what is in shards: sizes, lengths, mean and spread

films:
  clips features    cut films into clips and store a feature of each
  clips cluster     fit a tree of clusters to features of clips (hierarchical k-means)
  clips encode      give clips the ids of their clusters
  clips show        write a page with pictures of clusters of clips
  clips classify    rank words by how well they fit the gaps of a sentence about a film (VideoBERT)
  clips retrieve    find films by their words, and words by their film
  clips continue    tell the likeliest next clips of films, with pictures
  clips caption-features  write a vector of each film for a captioner

training (options: multimodal fit --help; settings of a class: multimodal fit --model.help CLASS):
  fit               train a tokenizer, pretrain an encoder, or fine-tune one
  validate          score a checkpoint on the validation split
  test              score a checkpoint on the test split
  predict           write features (or ids, or probabilities of classes) of the test split as .npy, or files with what was hidden filled in

  tokenizers train    a vocabulary of your own texts (WordPiece, BPE, unigram)
  tokenizers iterate  a tokenizer and an encoder in turns, each from the other (BEATs)

models:
  import            read a published checkpoint (BEiT, ViT, MAE, BEATs, BERT ...) and save it as ours
  export            write a model for timm, transformers, torch.export or ONNX
  sizes             count what an encoder costs: parameters, multiply-adds, memory of training

results:
  probe             tell how much of a label can be read from a model's features, layer by layer
  features          write a model's features of shards, as .npy files or beside the data
  report            write one self-contained HTML page about a run

options:
  -h, --help        show this help; COMMAND --help shows a command's own
  --version         show the version

Set MULTIMODAL_DEBUG=1 to see the traceback of an error.
"""


def _lightning(arguments: list[str]) -> int:
    from multimodal.lightning_cli import run

    return run(arguments)


def _shards(arguments: list[str]) -> int:
    from multimodal.datamodules.commands import main

    return main(arguments[1:])


def _clips(arguments: list[str]) -> int:
    from multimodal.clips.commands import main

    return main(arguments[1:])


def _tokenizers(arguments: list[str]) -> int:
    from multimodal.iteration.commands import main

    return main(arguments[1:])


def _report(arguments: list[str]) -> int:
    from multimodal.report.command import main

    return main(arguments[1:])


def _import(arguments: list[str]) -> int:
    from multimodal.pretrained.commands import import_main

    return import_main(arguments[1:])


def _export(arguments: list[str]) -> int:
    from multimodal.pretrained.commands import export_main

    return export_main(arguments[1:])


def _features(arguments: list[str]) -> int:
    from multimodal.features.commands import features_main

    return features_main(arguments[1:])


def _probe(arguments: list[str]) -> int:
    from multimodal.features.commands import probe_main

    return probe_main(arguments[1:])


def _sizes(arguments: list[str]) -> int:
    from multimodal.training.sizes_command import main

    return main(arguments[1:])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **dict.fromkeys(("fit", "validate", "test", "predict"), _lightning),
    "shards": _shards,
    "clips": _clips,
    "tokenizers": _tokenizers,
    "import": _import,
    "export": _export,
    "sizes": _sizes,
    "probe": _probe,
    "features": _features,
    "report": _report,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error in the work, 2 for one in the command or its config."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"multimodal {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"error: unknown command {arguments[0]!r}: one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        return COMMANDS[arguments[0]](arguments)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("MULTIMODAL_DEBUG"):
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def describe(error: BaseException) -> str:
    """Return the error's message in one line; of one that a data worker sent as a traceback, the last line."""
    message = str(error).strip() or type(error).__name__
    if "in DataLoader worker process" in message:
        return message.splitlines()[-1].split(": ", 1)[-1]
    return shorten(message)
