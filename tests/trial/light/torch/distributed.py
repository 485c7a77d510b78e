"""See the package."""

import time


def is_available() -> bool:
    return True


def is_gloo_available() -> bool:
    return True


def is_nccl_available() -> bool:
    return False


class TCPStore:
    def __init__(self, *given: object, **named: object) -> None:
        time.sleep(600)
