"""How well an SAE reconstructs the activations of texts: the numbers of the paper's Table 7.

One batch is held at a time. Training (`fac.sae.recipe`) reports the same numbers as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from tqdm import tqdm

from fac.backbone import Backbone
from fac.chat import Encoded, Message, encode_many
from fac.errors import FacError
from fac.features.batches import window_of
from fac.sae.load import Sae, finite
from fac.sae.settings import Tokens

_WINDOW = 512  # texts sorted by length together


@dataclass(frozen=True)
class Quality:
    """Of a reconstruction, over all texts."""

    l2: float  # mean over texts of the mean over their tokens of |x' - x|^2 / |x|^2 (released code's loss; Table 7)
    explained_variance: float  # 1 - sum of |x' - x|^2 / sum of |x - mean x|^2, over all tokens
    l0: float  # mean number of features that fire on a token
    active: int  # features that fire on any token
    tokens: int


class Rows(NamedTuple):
    """Residuals of tokens."""

    x: torch.Tensor  # [tokens, d_model], float32
    share: torch.Tensor  # [tokens], 1 / tokens of its text: the shares of a text add up to 1


def token_rows(
    backbone: Backbone, chats: Sequence[Sequence[Message]], *, max_tokens: int, tokens: Tokens, batch_tokens: int
) -> Iterator[Rows]:
    """The residuals of all chats, sorted by length, in batches of at most `batch_tokens` padded tokens.

    tokens "all": the first `max_tokens` of a chat, its template included; "content": only the content among them.
    """
    encoded = encode_many(backbone.tokenizer, [chat for chat in chats if chat])
    if tokens == "all":
        encoded = [Encoded(ids, [True] * len(ids)) for ids, _ in encoded]
    window = window_of([Encoded(ids[:max_tokens], kept[:max_tokens]) for ids, kept in encoded])
    for batch in window.batches(batch_tokens):
        content = batch.content(backbone)
        shares = 1 / content.row.bincount(minlength=len(batch.texts))
        yield Rows(finite(content.residual, backbone).float(), shares[content.row])


class Tally:
    """Sums over batches, kept on the device."""

    def __init__(self, d_model: int, width: int, device: torch.device) -> None:
        self.fired = torch.zeros(width, dtype=torch.bool, device=device)
        self.tokens = 0
        self._sum = torch.zeros(d_model, dtype=torch.float64, device=device)
        # of |x|^2, |x' - x|^2, shares of relative errors, shares (the number of texts), and of features that fire
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, rows: Rows, reconstruction: torch.Tensor, firing: torch.Tensor, fired: torch.Tensor) -> torch.Tensor:
        """Count a batch; `firing` is how many features fire in it, over all tokens, `fired` (bool [width]) are which.

        Returns the batch's part of the loss: the relative errors of its tokens, weighed by `rows.share` and summed.
        """
        error, energy = (reconstruction - rows.x).pow(2).sum(dim=1), rows.x.pow(2).sum(dim=1)
        loss = (error / energy * rows.share).sum()
        self.tokens += len(rows.x)
        self.fired |= fired
        self._sum += rows.x.sum(dim=0)
        self._sums += torch.stack([energy.sum(), error.detach().sum(), loss.detach(), rows.share.sum(), firing])
        return loss

    def quality(self) -> Quality:
        """Raises FacError if no token was counted."""
        if not self.tokens:
            raise FacError("The texts have no tokens to measure the SAE on: name a data set with texts.")
        energy, error, relative, texts, firing = self._sums.tolist()
        variance = energy - float(self._sum.pow(2).sum()) / self.tokens
        return Quality(relative / texts, 1 - error / variance, firing / self.tokens, int(self.fired.sum()), self.tokens)


def quality(
    sae: Sae,
    backbone: Backbone,
    chats: Iterable[Sequence[Message]],
    total: int,
    *,
    max_tokens: int = 512,
    tokens: Tokens = "content",
    batch_tokens: int = 4096,
    encode_elements: int = 1 << 25,
) -> Quality:
    """Encode and reconstruct `total` chats; at most `encode_elements` activations are held at a time."""
    tally = Tally(backbone.d_model, sae.width, backbone.device)
    source = iter(chats)
    most = max(encode_elements // sae.width, 1)
    with tqdm(total=total, desc="measuring the SAE", unit="text", leave=False) as bar:
        while window := list(islice(source, _WINDOW)):
            for batch in token_rows(backbone, window, max_tokens=max_tokens, tokens=tokens, batch_tokens=batch_tokens):
                for rows in map(Rows, batch.x.split(most), batch.share.split(most)):
                    activations, reconstruction = sae.reconstruct(rows.x)
                    on = activations > 0
                    tally.add(rows, reconstruction, on.sum(), on.any(dim=0))
            bar.update(len(window))
    return tally.quality()
