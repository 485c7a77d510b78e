"""A torch that is there at once, and whose ranks never get through to their store.

For tests in which a trial has to be under way, and what ranks compute does not matter.
"""

import types

__version__ = "2.13.0"
version = types.SimpleNamespace(cuda=None, hip=None, git_version="")
