"""Networks by name, in 2D and 3D, with one signature.

catalogue     their names, papers, widths and arguments; what is checked and told without loading PyTorch
chosen        a network as settings ask for it
building      `build`: name -> network, with weights that depend on the seed alone
supervision   heads on the decoder, for networks of every kind
from_monai    the networks that MONAI has; `r2unet` and `mrrn` are ours

    network = build("unet", dimension=2, channels=1, classes=2, seed=0, deep_supervision=True)
    network.train()(images)  # logits at strides 1, 2, 4 and 8, as unifocal.DeepSupervision takes them
    network.eval()(images)  # the first of them alone
"""

from unifocal.lab.networks.building import build
from unifocal.lab.networks.catalogue import NETWORKS, check_network, divisor, smallest

__all__ = ["NETWORKS", "build", "check_network", "divisor", "smallest"]
