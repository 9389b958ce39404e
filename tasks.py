"""What `invoke` loads: the collection of the package beside this file."""

import os
import sys

sys.modules.pop(__name__, None)  # Invoke registers this file as `tasks`, which is the package's name
# Invoke turns bytecode off, so that each command would compile the package anew (0.2 s).
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))

from tasks import namespace  # noqa: E402

__all__ = ["namespace"]
