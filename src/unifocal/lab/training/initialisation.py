"""How the weights of convolutions are drawn before the first step."""

from typing import Literal

import torch
from torch import nn
from torch.nn import init
from torch.nn.modules.conv import _ConvNd


def initialise(network: nn.Module, how: Literal["torch", "xavier", "he"], seed: int) -> None:
    """Draw the weights of all convolutions anew, biases 0, by the seed alone; "torch" leaves those of the layers.

    xavier  uniform, variance 2 / (inputs + outputs): Glorot and Bengio 2010, the default of Keras
    he      normal, variance 2 / inputs: He et al. 2015
    """
    if how == "torch":
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, _ConvNd):
                if how == "xavier":
                    init.xavier_uniform_(module.weight)
                else:
                    init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    init.zeros_(module.bias)
