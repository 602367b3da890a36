"""One process or several: where each computes, and how they share one network (torchrun)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from gpnet_node.model.network import GPNet


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process computes, and which of how many processes it is. The first one writes and tells."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and tells how it goes."""
        return self.rank == 0


@contextmanager
def places(device: str, environment: Mapping[str, str]) -> Iterator[Place]:
    """Where to compute. ``auto``: a GPU if there is one. Under ``torchrun``: one process for each GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Place(device=torch.device(device))
        return
    if device == "cuda":
        device = f"cuda:{environment['LOCAL_RANK']}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Place(device=torch.device(device), rank=int(environment["RANK"]), count=count)
    finally:
        distributed.destroy_process_group()


class _Scales(nn.Module):
    """The network, called for all its scales: what is shared among processes is a module's forward."""

    def __init__(self, network: GPNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.network.scales(image)


def shared(network: GPNet, place: Place) -> nn.Module:
    """Image -> ``network.scales``; in the backward pass, gradients are the mean over all processes."""
    if place.count == 1:
        return _Scales(network)
    devices = [place.device.index] if place.device.type == "cuda" else None
    return DistributedDataParallel(_Scales(network), device_ids=devices, find_unused_parameters=True)


def meet(place: Place) -> None:
    """Wait until every process is here."""
    if place.count > 1:
        distributed.barrier()
