"""torchvision beside a torch that it was not built for, as CPU wheels are: it resizes, without its own kernels."""

import sys
from types import ModuleType

sys.modules.setdefault("torchvision._meta_registrations", ModuleType("none"))
