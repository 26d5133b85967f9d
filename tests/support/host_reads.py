"""How often values of tensors are read on the host, which a GPU's caller waits for."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts what would make a GPU's caller wait: reading a value, branching on one, or asking how many there are."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.READS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))
