"""The model card of a saved model."""

from __future__ import annotations

from multimodal import __version__
from multimodal.pretrained.model import PretrainedModel

CARD = """---
library_name: multimodal
license: {licence}
tags: [masked-modeling{tags}]
---

# {title}

{numbers} parameters: an encoder of {depth} layers, width {dim}, {heads} heads; {parts}.

```python
import multimodal

model = multimodal.from_pretrained("PATH/OF/THIS/FOLDER")
features = model.forward_features(values)  # (samples, tokens, {dim})
```

{origin}
Saved by multimodal {version}.
"""


def model_card(model: PretrainedModel) -> str:
    """Return the card: sizes, modalities, heads, and for imported weights their source, hash and licence."""
    settings, origin = model.settings, model.settings.origin
    modalities = ", ".join(sorted(settings.embeds))
    heads = f"heads: {', '.join(sorted(settings.heads))}" if settings.heads else "no heads"
    said = ""
    if origin.family:
        said = (
            f"Weights: `{origin.file}` (sha256 `{origin.sha256}`), {origin.family} in the layout of {origin.layout}, {origin.source}.\n"
            f"Licence of the published weights: {origin.licence}.\n"
        ) + (f"Resampled: {origin.resized}.\n" if origin.resized else "")
    elif origin.licence:
        said = (
            f"Trained on from the weights of `{origin.file}` (sha256 `{origin.sha256}`), {origin.source}.\n"
            f"Licence of those weights: {origin.licence}.\n"
        )
    return CARD.format(
        licence=origin.licence.split(" ")[0].lower() if origin.licence else "unknown",
        tags="".join(f", {name}" for name in sorted(settings.embeds)),
        title=f"{origin.family} encoder of {modalities}" if origin.family else f"Encoder of {modalities}",
        numbers=f"{sum(x.numel() for x in model.parameters()):,}",
        depth=model.encoder.depth,
        dim=model.encoder.dim,
        heads=model.encoder.num_heads,
        parts=f"modalities: {modalities}; {heads}",
        origin=said,
        version=__version__,
    )
