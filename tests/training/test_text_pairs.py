"""Classes of pairs of texts: the logits of BertForSequenceClassification with its token types."""

import torch
import transformers

from multimodal.batch import Sample, collate
from multimodal.heads import ClassificationHead
from multimodal.tokenizers.text import FileTokenizer, TextPairTransform
from multimodal.training import FineTuning
from tests.tokenizers.text.word_pieces import write_vocabulary
from tests.training.text_tasks import published

PAIRS = [("the cat sat", "on the mat"), ("a cat", "the mat, the cat and the long unheard story of the mat"), ("cat " * 40, "mat " * 9)]


@torch.no_grad()
def test_logits_of_pairs_are_those_of_bert(tmp_path):
    path = write_vocabulary(tmp_path, ["the", "cat", "sat", "on", "mat", "and", "story"])
    tokenizer = FileTokenizer(str(path), special_tokens=True)
    transform = TextPairTransform(tokenizer, max_tokens=32)
    kind = transformers.BertForSequenceClassification
    reference, encoder, modalities = published(tmp_path / "model", kind, transform, tokenizer.vocab_sizes[0], num_labels=3)
    model = FineTuning(encoder, modalities, {"label": lambda dim: ClassificationHead(dim, 3, pool="first", hidden="tanh")}).eval()
    head = model.heads["label"]
    head.hidden[0].load_state_dict(reference.bert.pooler.dense.state_dict())
    head.proj.load_state_dict(reference.classifier.state_dict())
    generator = torch.Generator()
    samples = [
        Sample(
            str(number), {"text": transform.labelled(transform.decode(a.encode()), transform.decode_labels(b.encode()), generator, False)}
        )
        for number, (a, b) in enumerate(PAIRS)
    ]
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]")
    encoded = theirs(*map(list, zip(*PAIRS, strict=True)), truncation="longest_first", max_length=32, padding=True, return_tensors="pt")
    types = torch.stack([torch.nn.functional.pad(s.items["text"].values[:, 1], (0, 32 - len(s.items["text"].values))) for s in samples])
    expected = reference(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, token_type_ids=types).logits
    found = model(collate(samples))["label"]
    assert expected.abs().max() > 0.1 and (found - expected).abs().max() <= 1e-5
    without = reference(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask).logits
    assert (found - without).abs().max() > 1e-2  # types matter
