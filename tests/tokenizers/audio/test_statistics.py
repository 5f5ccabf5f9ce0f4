"""The two published families of spectrograms cannot be mixed: a mean of one is refused beside the gain of the other."""

from functools import partial

import pytest

from multimodal.masking import RandomMasking
from multimodal.modality import Input, Modality
from multimodal.tokenizers.audio import (
    AudioTransform,
    LogMel,
    RandomProjectionTokenizer,
    SpectrogramEmbed,
    Spectrograms,
    SpectrogramTransform,
)

BEATS, AUDIOSET, ESC, COMMANDS = (15.41663, 13.11164), (-4.2677393, 9.1379948), (-6.6268077, 10.716916), (-6.845978, 11.1309052)
QUIET = LogMel(window="hanning", gain=1.0)


def make_input(statistics, features, on_device=False) -> Input:
    mean, std = statistics
    embed = partial(SpectrogramEmbed, mean=mean, std=std)
    if on_device:
        return Input(16, AudioTransform(), embed, preparation=[Spectrograms(features)])
    return Input(16, SpectrogramTransform(features=features), embed)


@pytest.mark.parametrize("on_device", [False, True])
def test_published_statistics_go_with_their_gain_alone(on_device):
    make_input(BEATS, LogMel(), on_device)
    for statistics in (AUDIOSET, ESC, COMMANDS):
        make_input(statistics, QUIET, on_device)
        with pytest.raises(ValueError, match=r"mean -\d.\d+ is not of spectrograms with gain 32768, whose means lie in \[4.9, 25.8\]"):
            make_input(statistics, LogMel(), on_device)
    with pytest.raises(ValueError, match=r"mean 15.4166 is not of spectrograms with gain 1, whose means lie in \[-15.9, 5.0\]"):
        make_input(BEATS, QUIET, on_device)


def test_a_tokenizer_with_other_statistics_than_the_input_is_refused():
    embed = partial(SpectrogramEmbed, mean=AUDIOSET[0], std=AUDIOSET[1])
    make = partial(Modality, 16, SpectrogramTransform(features=QUIET), embed, RandomMasking(0.75))
    with pytest.raises(ValueError, match=r"mean 15.4166 is not of spectrograms with gain 1,"):
        make(tokenizer=RandomProjectionTokenizer(num_codes=8))
    make(tokenizer=RandomProjectionTokenizer(num_codes=8, mean=AUDIOSET[0], std=AUDIOSET[1]))
