"""How long the audit of an untrained network on 32x32 pictures takes: ``python tests/audit_times.py M bcop,cayley``."""

import sys
import time

import torch

from lipref.certification.bounds import network_bound
from lipref.nets import convnet

if __name__ == "__main__":
    size, layers = sys.argv[1:]
    for layer in layers.split(","):
        torch.manual_seed(0)
        model = convnet(size, layer, 10, 3, 32).eval()
        started = time.perf_counter()
        bound = network_bound(model).bound
        print(f"{size} {layer}: {time.perf_counter() - started:.1f} s, bound {bound!r}", flush=True)
