"""Mean residuals of texts: an embedding for diversity metrics, read where features are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fac.backbone import Backbone
from fac.chat import Message
from fac.features.batches import windows
from fac.features.sent import Sent
from fac.features.settings import FeatureSettings
from fac.sae.load import not_finite


def content_means(
    backbone: Backbone, chats: Sequence[Sequence[Message]], settings: FeatureSettings
) -> NDArray[np.float32]:
    """Mean residual of each chat's content tokens, zero if it has none; shape [chats, d_model]."""
    means = np.zeros((len(chats), backbone.d_model), np.float32)
    budget = settings.batch_on(backbone.device.type == "cuda")
    for window in windows(backbone, chats, settings):
        for batch in window.batches(budget):
            content = batch.content(backbone)
            sums = torch.zeros(len(batch.texts), backbone.d_model, device=backbone.device)
            sums.index_add_(0, content.row, content.residual.float())
            counts = content.row.bincount(minlength=len(batch.texts))
            (found,) = Sent(sums / counts[:, None]).arrays()
            if not np.isfinite(found).all():
                raise not_finite(backbone)
            means[batch.texts] = found.reshape(len(batch.texts), -1)
    return means
