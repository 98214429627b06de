"""The contrastive loss that brings a trial and its image together."""

import torch
from torch import Tensor
from torch.nn import functional


def infonce(
    brain: Tensor, images: Tensor, owner: Tensor, logit_scale: Tensor, one_way: bool = False
) -> Tensor:
    """InfoNCE in which all trials of an image are its positives, both ways or one way only.

    Trials are classified among the batch's images by cross-entropy; each image is classified among
    the trials, by the mean log-probability of its own; the two are averaged. When every image has
    one trial this is the loss of CLIP (Radford et al. 2021). Repeats of an image are not pushed
    apart, as they are when the batch's diagonal alone is taken as positive.

    Args:
        brain: (trials, dim) embeddings of trials, of any length.
        images: (images, dim) embeddings of the batch's images, each once, of any length.
        owner: int64 (trials,), the row in `images` of each trial; every image must have a trial.
        logit_scale: natural logarithm of the factor on the cosines.
        one_way: classify trials among images only.
    """
    cosines = functional.normalize(brain, dim=1) @ functional.normalize(images, dim=1).T
    # As precise as the scale: cosines may be bfloat16, too coarse for a softmax.
    logits = logit_scale.exp() * cosines.to(logit_scale.dtype)
    trial_to_image = functional.cross_entropy(logits, owner)
    if one_way:
        return trial_to_image
    of_own_trial = logits.log_softmax(dim=0).gather(1, owner[:, None]).squeeze(1)
    trials_of_image = torch.bincount(owner, minlength=len(images))
    image_to_trial = -(of_own_trial / trials_of_image[owner]).sum() / len(images)
    return (trial_to_image + image_to_trial) / 2
