"""ddp-assist: finds out why a PyTorch distributed job does not start, or hangs."""

__version__ = "0.1.0"
